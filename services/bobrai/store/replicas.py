"""The living API processes: who divides the rates of principals among themselves.

In: heartbeats. Out: how many there are. A process that is killed counts until its lease is over.
"""

from bobrai.store.pool import Executor
from bobrai.store.queries import statement

_REGISTER = statement("register_replica")
_RENEW = statement("renew_replica")
_FORGET = statement("forget_replicas")
_COUNT = statement("count_replicas")


async def register(database: Executor, *, lease_seconds: float) -> int:
    """Count one more process; returns its id."""
    return int((await database.fetch(_REGISTER, lease_seconds))[0]["id"])


async def renew(database: Executor, replica_id: int, *, lease_seconds: float) -> bool:
    """Say that a process lives; returns False when it was forgotten, and must register again."""
    return bool(await database.fetch(_RENEW, replica_id, lease_seconds))


async def forget(database: Executor, replica_id: int) -> None:
    """Count a process no longer, nor any whose lease is over."""
    await database.fetch(_FORGET, replica_id)


async def count(database: Executor) -> int:
    """Return how many processes live."""
    return int((await database.fetch(_COUNT))[0]["replicas"])
