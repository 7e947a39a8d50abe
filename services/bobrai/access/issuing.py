"""API keys made and rotated: a secret is drawn here, told once, and only its hash goes on.

In: wishes of whoever may manage keys. Out: the secret for that person's eyes, and a row.
"""

from datetime import datetime
from typing import NamedTuple

from bobrai.access import secrets
from bobrai.domain.access import UNBOUNDED, Allowance, Grant
from bobrai.store import keys
from bobrai.store.pool import Executor
from bobrai.telemetry import logs

log = logs.get_logger(__name__)


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
    created_by: str,
    expires_at: datetime | None = None,
    expires_seconds: float | None = None,
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
        created_by=created_by,
        expires_at=expires_at,
        expires_seconds=expires_seconds,
    )
    log.info("key.created", key_id=key_id, name=name, scopes=grant.named_scopes, by=created_by)
    return Issued(key_id, secret)


async def rotate(database: Executor, key_id: str, *, grace_seconds: float, by: str) -> Issued | None:
    """Give a key another secret; the one so far works for the grace. None: no key that can be used has this id."""
    secret = secrets.new_secret(key_id)
    if not await keys.rotate(database, key_id, secret_hash=secrets.digest(secret), grace_seconds=grace_seconds):
        return None
    log.info("key.rotated", key_id=key_id, grace_seconds=grace_seconds, by=by)
    return Issued(key_id, secret)


async def revoke(database: Executor, key_id: str, *, by: str) -> bool:
    """End a key for good; returns whether there was one to end."""
    if not await keys.revoke(database, key_id):
        return False
    log.info("key.revoked", key_id=key_id, by=by)
    return True
