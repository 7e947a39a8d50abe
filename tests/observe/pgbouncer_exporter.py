"""PgBouncer's figures under the names that prometheuscommunity/pgbouncer_exporter gives them.

The chart runs that program; no package registry has it (Debian's exporter of a similar name reads columns that
PgBouncer dropped in 1.8). Only what the dashboards read is here. Run as `python -m tests.observe.pgbouncer_exporter
LISTEN_PORT PGBOUNCER_PORT`. In: SHOW commands, one connection per scrape. Out: `/metrics`.
"""

import socket
import struct
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO, NamedTuple

HOST = "127.0.0.1"
USER = "pgbouncer"
MICROSECONDS = 1e-6


class Column(NamedTuple):
    """What becomes of one column."""

    metric: str
    kind: str
    factor: float = 1.0


# SHOW command: the columns that are labels, and the others by name
SHOWN: dict[str, tuple[tuple[str, ...], dict[str, Column]]] = {
    "databases": (
        ("name", "host", "port", "database", "force_user", "pool_mode"),
        {
            "pool_size": Column("pool_size", "gauge"),
            "max_connections": Column("max_connections", "gauge"),
            "current_connections": Column("current_connections", "gauge"),
            "paused": Column("paused", "gauge"),
            "disabled": Column("disabled", "gauge"),
        },
    ),
    "stats_totals": (
        ("database",),
        {
            "query_count": Column("queries_pooled_total", "counter"),
            "query_time": Column("queries_duration_seconds_total", "counter", MICROSECONDS),
            "xact_count": Column("sql_transactions_pooled_total", "counter"),
            "xact_time": Column("server_in_transaction_seconds_total", "counter", MICROSECONDS),
            "wait_time": Column("client_wait_seconds_total", "counter", MICROSECONDS),
            "bytes_received": Column("received_bytes_total", "counter"),
            "bytes_sent": Column("sent_bytes_total", "counter"),
        },
    ),
    "pools": (
        ("database", "user"),
        {
            "cl_active": Column("client_active_connections", "gauge"),
            "cl_waiting": Column("client_waiting_connections", "gauge"),
            "sv_active": Column("server_active_connections", "gauge"),
            "sv_idle": Column("server_idle_connections", "gauge"),
            "sv_used": Column("server_used_connections", "gauge"),
            "sv_login": Column("server_login_connections", "gauge"),
            "maxwait": Column("client_maxwait_seconds", "gauge"),
        },
    ),
}
CONFIGURED = {"max_client_conn": "max_client_connections"}


def show(port: int, commands: list[str]) -> list[list[dict[str, str]]]:
    """The rows of each SHOW command; the admin console speaks the simple query protocol alone."""
    with socket.create_connection((HOST, port), timeout=5) as connection:
        stream = connection.makefile("rwb")
        parameters = b"".join(f"{part}\0".encode() for part in ("user", USER, "database", "pgbouncer")) + b"\0"
        stream.write(struct.pack("!II", len(parameters) + 8, 196608) + parameters)
        stream.flush()
        list(_rows(stream))
        answers = []
        for command in commands:
            text = f"SHOW {command}\0".encode()
            stream.write(b"Q" + struct.pack("!I", len(text) + 4) + text)
            stream.flush()
            answers.append(list(_rows(stream)))
        return answers


def _rows(stream: BinaryIO) -> Iterator[dict[str, str]]:
    """The rows up to the next ReadyForQuery; raises OSError for an error or an early end."""
    names: list[str] = []
    while True:
        head = stream.read(5)
        if len(head) < 5:
            raise ConnectionError("PgBouncer closed the connection")
        kind, length = struct.unpack("!cI", head)
        body: bytes = stream.read(length - 4)
        if kind == b"E":
            raise ConnectionError(body.decode(errors="replace"))
        if kind == b"Z":
            return
        if kind == b"T":
            names = _column_names(body)
        if kind == b"D":
            yield dict(zip(names, _values(body), strict=True))


def _column_names(body: bytes) -> list[str]:
    names, rest = [], body[2:]
    while rest:
        name, _, rest = rest.partition(b"\0")
        names.append(name.decode())
        rest = rest[18:]
    return names


def _values(body: bytes) -> Iterator[str]:
    position = 2
    for _ in range(struct.unpack("!H", body[:2])[0]):
        (length,) = struct.unpack("!i", body[position : position + 4])
        position += 4
        yield body[position : position + max(length, 0)].decode()
        position += max(length, 0)


def exposition(port: int) -> str:
    """The text of /metrics; `pgbouncer_up 0` alone while PgBouncer does not answer."""
    try:
        *tables, config = show(port, [*(command.upper() for command in SHOWN), "CONFIG"])
    except OSError:
        return "# TYPE pgbouncer_up gauge\npgbouncer_up 0\n"
    lines = ["# TYPE pgbouncer_up gauge", "pgbouncer_up 1"]
    for (command, (labels, columns)), rows in zip(SHOWN.items(), tables, strict=True):
        for name, column in columns.items():
            metric = f"pgbouncer_{command}_{column.metric}"
            lines.append(f"# TYPE {metric} {column.kind}")
            for row in rows:
                said = ",".join(f'{label}="{row[label]}"' for label in labels)
                lines.append(f"{metric}{{{said}}} {float(row[name]) * column.factor}")
    values = {row["key"]: row["value"] for row in config}
    for key, metric in CONFIGURED.items():
        lines += [f"# TYPE pgbouncer_config_{metric} gauge", f"pgbouncer_config_{metric} {values[key]}"]
    return "\n".join(lines) + "\n"


def main(listen_port: int, pgbouncer_port: int) -> None:
    """Serve until killed."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exposition(pgbouncer_port).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing of each scrape."""

    ThreadingHTTPServer((HOST, listen_port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
