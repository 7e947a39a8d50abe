"""``bobrai audit``: who changed what, for whoever reaches the database.

In: filters. Out: the newest rows, as a table or as the JSON that the API answers with.
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
    tables.show([("AT", "ACTOR", "NAME", "ACTION", "TARGET", "FROM", "BEFORE", "AFTER"), *map(_line, rows)])


def _line(row: Record) -> tuple[str, ...]:
    return (
        f"{row['at']:%Y-%m-%d %H:%M:%S}Z",
        row["actor"],
        row["actor_name"],
        row["action"],
        row["target"],
        row["source"] or "-",
        row["before"] or "-",
        row["after"] or "-",
    )
