"""PgBouncer in transaction mode before a PostgreSQL server: the shared one, and private ones that a test may break."""

import signal
import socket
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from tests.support import discovery
from tests.support.run_folder import RunFolder
from tests.support.server_process import ServerProcess

HOST = "127.0.0.1"
START_SECONDS = 10.0

CONFIGURATION = """\
[databases]
* = host={host} port={port} user={user}{password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
admin_users = pgbouncer
pool_mode = transaction
max_prepared_statements = 200
max_client_conn = 2000
default_pool_size = 20
server_login_retry = 0.2
query_wait_timeout = 2
log_connections = 0
log_disconnections = 0
"""


class PgBouncerServer:
    """One pooler; it opens a pool for every database that is asked for."""

    def __init__(self, run: RunFolder, folder: Path, port: int) -> None:
        self.host = HOST
        self.port = port
        self._process = ServerProcess(run, discovery.find(run, "pgbouncer"), folder, stop_signal=signal.SIGKILL)

    @classmethod
    def create(cls, run: RunFolder, name: str, upstream_url: str) -> Self:
        """Start a pooler before the server of `upstream_url`; raises `ServerMissing`."""
        upstream = urlsplit(upstream_url)
        server = cls(run, run.folder(name), run.free_port())
        password = f" password={unquote(upstream.password)}" if upstream.password else ""
        server.configuration.write_text(
            CONFIGURATION.format(
                host=upstream.hostname, port=upstream.port or 5432, user=unquote(upstream.username or "postgres"),
                password=password, listen_port=server.port,
            )
        )  # fmt: skip
        server.start()
        return server

    def describe(self) -> dict[str, Any]:
        """What `attach` needs to make a handle in another process."""
        return {"folder": str(self._process.folder), "port": self.port}

    @classmethod
    def attach(cls, run: RunFolder, description: dict[str, Any]) -> Self:
        """A handle to a pooler that another worker process started."""
        return cls(run, Path(description["folder"]), description["port"])

    @property
    def configuration(self) -> Path:
        """Its ini file; a test may edit it and restart."""
        return self._process.folder / "pgbouncer.ini"

    @property
    def version(self) -> str:
        """The pooler's version, such as 1.26.1."""
        return self._process.installation.version

    def url(self, database: str) -> str:
        """The address of a database through this pooler."""
        return f"postgresql://postgres@{self.host}:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        self._process.start("pgbouncer", str(self.configuration))
        self._process.wait_ready(lambda: accepts_connections(self.port), timeout=START_SECONDS)

    def stop(self) -> None:
        """SIGINT: as an orderly shutdown, it waits for running queries."""
        self._process.stop(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def restart(self) -> None:
        """Cut every connection at once and start again on the same port."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._process.send_to_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._process.send_to_all(signal.SIGCONT)

    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process.is_running()

    dispose = kill

    def log_tail(self) -> str:
        """The end of what it printed."""
        return self._process.log_tail()


def accepts_connections(port: int) -> bool:
    """Whether something on this machine listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
