"""API keys as rows: made, listed, rotated, revoked, and read by those who authenticate.

In: hashes, never a secret. Out: records. Each change is told on a channel, so that every process knows it at once.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final

from bobrai.domain import limits
from bobrai.domain.access import Allowance, Grant
from bobrai.domain.audit import Action, Author
from bobrai.domain.errors import KeyNameTaken, RotationTooSoon, TooManyKeys
from bobrai.store import audit
from bobrai.store.pool import Executor, Record, Transactional
from bobrai.store.queries import statement

CHANNEL: Final = "bobrai_access"

_KNOWN = statement("known_keys")
_LIST = statement("list_keys")
_CREATE = statement("create_key")
_NAME_TAKEN = statement("key_name_taken")
_FREE_NAME = statement("free_key_name")
_ROTATE = statement("rotate_key")
_GRACE = statement("grace_of_key")
_REVOKE = statement("revoke_key")
_TOUCH = statement("touch_keys")
_SUPERSEDE_TWINS = statement("supersede_twins")
_DECLARE = statement("declare_key")
_OTHER = statement("other_key_of_name")
_PRUNE = statement("prune_keys")


async def known(database: Executor) -> list[Record]:
    """Return what authentication needs of every key that can be used or ended within a day; ``*_in`` are seconds."""
    return await database.fetch(_KNOWN)


async def every(database: Executor) -> list[Record]:
    """Return every key for people to see, the oldest first."""
    return await database.fetch(_LIST, None)


async def get(database: Executor, key_id: str) -> Record | None:
    """Return one key for people to see, or None."""
    rows = await database.fetch(_LIST, key_id)
    return rows[0] if rows else None


async def create(
    database: Executor,
    key_id: str,
    *,
    name: str,
    secret_hash: bytes,
    grant: Grant,
    allowance: Allowance,
    expires_at: datetime | None,
    expires_seconds: float | None,
    by: Author,
) -> None:
    """Store a new key, which ends at a moment, or after so many seconds, or never.

    Raises KeyNameTaken and TooManyKeys.
    """
    values = (*_columns(grant, allowance), expires_at, expires_seconds, limits.MAX_KEYS, *by)
    rows = await database.fetch(_CREATE, key_id, name, secret_hash, *values)
    if not rows and await database.fetch(_FREE_NAME, name):
        rows = await database.fetch(_CREATE, key_id, name, secret_hash, *values)
    if rows:
        audit.tell(rows[0]["audit_id"], Action.KEY_CREATE, f"key:{key_id}", by)
        return
    if await database.fetch(_NAME_TAKEN, name):
        raise KeyNameTaken(f"a key named {name!r} is there already: revoke it, rotate it, or choose another name")
    raise TooManyKeys(f"there are {limits.MAX_KEYS} keys, as many as there may be: revoke one that is not needed")


async def declare(
    database: Transactional,
    key_id: str,
    *,
    name: str,
    secret_hash: bytes,
    grant: Grant,
    allowance: Allowance,
    grace_seconds: float,
    by: Author,
) -> str:
    """Make a key, or make one that ``by`` has made what its declaration says.

    Returns the id of the key of somebody else that has this name or id; then nothing was done. Otherwise "".
    """
    async with database.transaction() as connection:
        ended = await connection.fetch(_SUPERSEDE_TWINS, name, key_id, *by, grace_seconds)
        values = _columns(grant, allowance)
        made = await connection.fetch(_DECLARE, key_id, name, secret_hash, *values, grace_seconds, *by)
        rows = await connection.fetch(_OTHER, name, key_id, by.actor)
    for row in ended:
        audit.tell(row["audit_id"], Action.KEY_CHANGE, f"key:{row['id']}", by)
    for row in made:
        audit.tell(row["audit_id"], row["action"], f"key:{key_id}", by)
    return rows[0]["id"] if rows else ""


def _columns(grant: Grant, allowance: Allowance) -> tuple[Any, ...]:
    """Return scopes to max_waiting, in the order of the table."""
    rate = allowance.rate
    return (
        grant.named_scopes,
        list(grant.queues),
        list(grant.types),
        grant.own_tasks,
        None if rate is None else str(rate),
        allowance.burst,
        allowance.max_waiting,
    )


async def rotate(database: Executor, key_id: str, *, secret_hash: bytes, grace_seconds: float, by: Author) -> bool:
    """Give a key another secret, beside which the one so far works for the grace; returns whether it can be used.

    Raises RotationTooSoon while the grace of the rotation before lasts, but for a grace of 0, which ends it too.
    """
    rows = await database.fetch(_ROTATE, key_id, secret_hash, grace_seconds, *by)
    if not rows:
        if grace := await database.fetch(_GRACE, key_id):
            until = grace[0]["previous_until"].astimezone(UTC)
            raise RotationTooSoon(
                f"the secret before the last rotation works until {until:%Y-%m-%d %H:%M:%S}Z: rotate again then, or "
                "with a grace of 0, which ends it and the one so far at once"
            )
        return False
    audit.tell(rows[0]["audit_id"], Action.KEY_ROTATE, f"key:{key_id}", by)
    return True


async def revoke(database: Executor, key_id: str, *, by: Author) -> bool:
    """End a key for good; returns whether there was one that had not ended so before."""
    rows = await database.fetch(_REVOKE, key_id, *by)
    if not rows:
        return False
    audit.tell(rows[0]["audit_id"], Action.KEY_REVOKE, f"key:{key_id}", by)
    return True


async def touch(database: Executor, key_ids: Collection[str]) -> None:
    """Note that these keys are used."""
    await database.fetch(_TOUCH, list(key_ids))


async def prune(database: Executor, *, retention_seconds: float) -> int:
    """Forget the keys that ended before the retention time; returns how many."""
    return len(await database.fetch(_PRUNE, retention_seconds))
