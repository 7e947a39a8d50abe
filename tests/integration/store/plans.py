"""What PostgreSQL does for a statement: its plan, executed and rolled back, as a tree of nodes."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg


def literal(value: object) -> str:
    """A parameter's value as SQL text; PREPARE knows its type."""
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list):
        return _quoted("{" + ",".join(map(_element, value)) + "}")
    return _quoted(value.isoformat() if isinstance(value, datetime) else str(value))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _element(value: object) -> str:
    return "NULL" if value is None else json.dumps(value if isinstance(value, str) else str(value))


class Plan(NamedTuple):
    """An executed plan."""

    nodes: list[dict[str, Any]]
    buffers: int  # pages of 8 kB looked at, in memory or on disk
    milliseconds: float

    def scanned_whole(self, tables: set[str]) -> list[str]:
        """Return the tables that were read from end to end."""
        return [
            node["Relation Name"]
            for node in self.nodes
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in tables
        ]

    def rows_found(self) -> int:
        """Return the most rows that any node got out of a table."""
        return max(
            int(node["Actual Rows"] * node["Actual Loops"]) for node in self.nodes if "Scan" in node["Node Type"]
        )

    def __str__(self) -> str:
        return "\n".join(
            f"{node['Node Type']} {node.get('Relation Name', '')} {node.get('Index Name', '')}"
            f" rows={node['Actual Rows']} loops={node['Actual Loops']}"
            f" buffers={_buffers(node)}"
            for node in self.nodes
        )


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _walk(child)


def _buffers(node: dict[str, Any]) -> int:
    return int(node["Shared Hit Blocks"] + node["Shared Read Blocks"])


def _own_buffers(node: dict[str, Any]) -> int:
    # A node counts what its children touched, except for writing subqueries that nothing reads: those run at the end.
    return max(0, _buffers(node) - sum(map(_buffers, node.get("Plans", []))))


async def plan(connection: asyncpg.Connection, statement: str, arguments: list[Any], mode: str) -> Plan:
    """Execute a statement under a plan_cache_mode, and undo it."""
    await connection.execute(f"BEGIN; SET LOCAL plan_cache_mode = {mode}; PREPARE planned AS {statement}")
    try:
        values = ", ".join(map(literal, arguments))
        call = f"planned({values})" if arguments else "planned"
        (row,) = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE {call}")
    finally:
        await connection.execute("ROLLBACK; DEALLOCATE planned")
    found = json.loads(row[0])[0]
    nodes = list(_walk(found["Plan"]))
    return Plan(nodes, sum(map(_own_buffers, nodes)), found["Execution Time"])
