"""API keys made and rotated: a secret is drawn here, told once, and only its hash goes on.

In: wishes of whoever may manage keys. Out: the secret for that person's eyes, and a row.
"""

from datetime import datetime
from typing import NamedTuple

from bobrai.access import secrets
from bobrai.domain.access import UNBOUNDED, Allowance, Grant
from bobrai.domain.audit import Author
from bobrai.store import keys
from bobrai.store.pool import Executor


class Issued(NamedTuple):
    """A key's id and its secret, which is nowhere else."""

    key_id: str
    secret: str


async def create(
    database: Executor,
    name: str,
    grant: Grant,
    allowance: Allowance = UNBOUNDED,
    *,
    expires_at: datetime | None = None,
    expires_seconds: float | None = None,
    by: Author,
) -> Issued:
    """Make a key that ends at a moment, or after so many seconds, or never; raises KeyNameTaken and TooManyKeys."""
    key_id = secrets.new_id()
    secret = secrets.new_secret(key_id)
    await keys.create(
        database,
        key_id,
        name=name,
        secret_hash=secrets.digest(secret),
        grant=grant,
        allowance=allowance,
        expires_at=expires_at,
        expires_seconds=expires_seconds,
        by=by,
    )
    return Issued(key_id, secret)


async def rotate(database: Executor, key_id: str, *, grace_seconds: float, by: Author) -> Issued | None:
    """Give a key another secret; the one so far works for the grace. None: no key that can be used has this id.

    Raises RotationTooSoon while the grace of the rotation before lasts, unless this one has none.
    """
    secret = secrets.new_secret(key_id)
    digest = secrets.digest(secret)
    found = await keys.rotate(database, key_id, secret_hash=digest, grace_seconds=grace_seconds, by=by)
    return Issued(key_id, secret) if found else None
