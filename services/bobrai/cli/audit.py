"""``bobrai audit``: who changed what, for whoever reaches the database.

In: filters. Out: the newest rows, as a table of what has changed, or as the JSON that the API answers with.
"""

import click
import msgspec

from bobrai.cli import tables
from bobrai.cli.database import with_database
from bobrai.store import audit
from bobrai.store.audit import AuditFilter
from bobrai.store.pool import Database, Record


def show(wanted: AuditFilter, *, limit: int, as_json: bool) -> None:
    """Print the newest changes, the newest first."""

    async def work(database: Database) -> list[Record]:
        return await audit.page(database, wanted, before_id=None, limit=limit)

    rows = with_database(work, command="audit")
    if as_json:
        from bobrai.api import audit_view

        click.echo(msgspec.json.encode([audit_view.entry(row) for row in rows]).decode())
        return
    tables.show([("AT", "ACTOR", "NAME", "ACTION", "TARGET", "FROM", "REQUEST", "CHANGE"), *map(_line, rows)])


def _line(row: Record) -> tuple[str, ...]:
    return (
        f"{row['at']:%Y-%m-%d %H:%M:%S}Z",
        row["actor"],
        row["actor_name"],
        row["action"],
        row["target"],
        row["source"] or "-",
        row["request_id"] or "-",
        _change(row["before"], row["after"]) or "-",
    )


def _change(before: str | None, after: str | None) -> str:
    """Return what is different afterwards, member by member; of something new what it has."""
    if after is None:
        return ""
    old, new = _members(before), _members(after)
    different = [name for name in new if new[name] != old.get(name)]
    return ", ".join(
        f"{name}: {_text(old[name])} -> {_text(new[name])}" if name in old else f"{name}: {_text(new[name])}"
        for name in different
    )


def _members(text: str | None) -> dict[str, object]:
    return {} if text is None else msgspec.json.decode(text, type=dict[str, object])


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
