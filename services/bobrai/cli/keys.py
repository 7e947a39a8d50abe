"""``bobrai keys``: API keys made, listed, rotated and revoked by whoever reaches the database.

In: arguments. Out: a row, and on standard output a new secret alone, so that a script can keep it; the rest is said on
standard error. A secret is never an argument, because everybody on the machine reads those.
"""

import re
from typing import Final

import click

from bobrai.access import issuing
from bobrai.cli import streams, tables
from bobrai.cli.database import author, with_database
from bobrai.domain import limits
from bobrai.domain.access import Allowance, Grant
from bobrai.domain.errors import ConfigurationError
from bobrai.store import keys
from bobrai.store.pool import Database, Record

_NAME: Final = re.compile(limits.KEY_NAME_PATTERN)


def create(name: str, grant: Grant, allowance: Allowance, expires_seconds: float | None) -> None:
    """Make a key and print its secret; raises ConfigurationError for a name that no key can have."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"--name: {limits.KEY_NAME_RULE}")

    async def work(database: Database) -> issuing.Issued:
        return await issuing.create(database, name, grant, allowance, expires_seconds=expires_seconds, by=author())

    issued = with_database(work)
    streams.say(f"key {issued.key_id} ({name}) was made; its secret is shown this once:")
    click.echo(issued.secret)


def rotate(wanted: str, grace_seconds: float) -> None:
    """Give a key another secret and print it; raises ConfigurationError when no key has this id or name."""

    async def work(database: Database) -> issuing.Issued:
        key_id = await _id_of(database, wanted)
        issued = await issuing.rotate(database, key_id, grace_seconds=grace_seconds, by=author())
        if issued is None:
            raise ConfigurationError(f"the key {wanted!r} has expired or was revoked: make another one")
        return issued

    issued = with_database(work)
    until = f"the one before works for {grace_seconds:g} s more" if grace_seconds else "the one before has ended"
    streams.say(f"key {issued.key_id} has another secret, shown this once; {until}:")
    click.echo(issued.secret)


def revoke(wanted: str) -> None:
    """End a key for good; raises ConfigurationError when no key has this id or name."""

    async def work(database: Database) -> str:
        key_id = await _id_of(database, wanted)
        await keys.revoke(database, key_id, by=author())
        return key_id

    streams.say(f"key {with_database(work)} has ended")


def list_all(*, as_json: bool) -> None:
    """Print every key, without secrets."""
    rows = with_database(keys.every)
    if as_json:
        import msgspec

        from bobrai.api import key_view

        click.echo(msgspec.json.encode([key_view.key(row) for row in rows]).decode())
        return
    tables.show([("ID", "NAME", "STATE", "SCOPES", "NARROWED TO", "RATE", "LAST USED"), *map(_line, rows)])


def _line(row: Record) -> tuple[str, ...]:
    narrowed = [*(f"queue {each}" for each in row["queues"]), *(f"type {each}" for each in row["types"])]
    if row["own_tasks"]:
        narrowed.append("own tasks")
    used = row["last_used_at"]
    return (
        row["id"],
        row["name"],
        _state(row),
        ",".join(row["scopes"]),
        ", ".join(narrowed) or "-",
        row["rate"] or "-",
        "never" if used is None else f"{used:%Y-%m-%d %H:%M}Z",
    )


def _state(row: Record) -> str:
    if row["revoked_at"] is not None:
        return "revoked"
    if row["expires_at"] is None:
        return "in use"
    ends = f"{row['expires_at']:%Y-%m-%d %H:%M}Z"
    return f"expired {ends}" if row["expired"] else f"until {ends}"


async def _id_of(database: Database, wanted: str) -> str:
    """Return the id of the key that has it, or that has this name and was not revoked."""
    rows = await keys.every(database)
    named = [row for row in rows if row["name"] == wanted and row["revoked_at"] is None and not row["superseded"]]
    for row in [row for row in rows if row["id"] == wanted] or named:
        return str(row["id"])
    raise ConfigurationError(f"no key has the id or the name {wanted!r}: see `bobrai keys list`")
