"""Leases: one row per living worker. Renewed by its heartbeat, removed when it expires; then its tasks are taken back.

In: the worker's heartbeat and the dispatcher's reaper. Out: who lives, and what was taken back from whom.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from bobrai.domain import limits
from bobrai.domain.errors import WorkerGone
from bobrai.store.pool import Executor, Record, column
from bobrai.store.queries import statement

_REGISTER = statement("register_worker")
_HEARTBEAT = statement("heartbeat")
_SPEEDS = statement("report_speeds")
_UNREGISTER = statement("unregister_worker")
_LIVE = statement("live_workers")
_EXPIRE = statement("expire_workers")
_LOST = statement("lost_workers")
_LOST_TASKS = statement("lost_tasks")
_TAKE_BACK = statement("take_back")


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A worker whose lease holds; ``speeds`` is tasks per second by queue. ``types`` None: it does not say."""

    id: int
    queues: tuple[str, ...]
    host: str
    concurrency: int
    running: int
    speeds: Mapping[str, float]
    started_at: datetime
    types: frozenset[str] | None = None

    def may_have(self, type_: str) -> bool:
        """Whether it has a handler for this type, as far as it says."""
        return self.types is None or type_ in self.types


async def register(
    database: Executor,
    *,
    queues: Sequence[str],
    host: str,
    concurrency: int,
    lease_seconds: float,
    types: Sequence[str] | None = None,
) -> int:
    """Make the row of a new worker and return its id, which no other process ever has."""
    has = None if types is None else list(types)
    rows = await database.fetch(_REGISTER, list(queues), host, concurrency, lease_seconds, has)
    worker_id: int = rows[0]["id"]
    return worker_id


async def heartbeat(database: Executor, worker_id: int, *, lease_seconds: float, running: int) -> list[int]:
    """Renew the lease and return the ids of claimed tasks that a user wants cancelled.

    Raises WorkerGone when the row is no longer there.
    """
    rows = await database.fetch(_HEARTBEAT, worker_id, lease_seconds, running)
    if not rows:
        raise WorkerGone(f"worker {worker_id} has no row")
    cancels: list[int] = rows[0]["cancels"]
    return cancels


async def report_speeds(database: Executor, worker_id: int, speeds: Mapping[str, float]) -> None:
    """Say how many tasks of each queue this worker can finish in a second."""
    await database.fetch(_SPEEDS, worker_id, msgspec.json.encode(speeds).decode())


async def unregister(database: Executor, worker_id: int) -> None:
    """Remove the row at a clean end; whatever the worker still held is then taken back."""
    await database.fetch(_UNREGISTER, worker_id)


async def live(database: Executor) -> list[LiveWorker]:
    """Return the workers whose lease holds."""
    return [
        LiveWorker(
            row["id"],
            tuple(row["queues"]),
            row["host"],
            row["concurrency"],
            row["running"],
            msgspec.json.decode(row["speeds"], type=dict[str, float]),
            row["started_at"],
            None if row["types"] is None else frozenset(row["types"]),
        )
        for row in await database.fetch(_LIVE)
    ]


async def expire(database: Executor, *, restart_grace_seconds: float) -> list[Record]:
    """Remove the rows whose lease is over; returns id, host and queues of each.

    Nothing expires within the grace after a start of PostgreSQL, while which nobody could renew.
    """
    return await database.fetch(_EXPIRE, restart_grace_seconds)


async def lost_tasks(database: Executor, besides: Sequence[int], *, limit: int = 1000) -> list[int]:
    """Return the ids of tasks that workers without a row were processing, at most ``limit``, without those given."""
    lost = column(await database.fetch(_LOST), "id")
    return column(await database.fetch(_LOST_TASKS, lost, limit, besides), "id") if lost else []


async def take_back(database: Executor, *, limit: int = 1000, only: Sequence[int] | None = None) -> list[Record]:
    """Take back tasks that workers without a row were processing, at most ``limit``, or only the given ones of them.

    Returns id, attempt, type, status, queue, request_id and losses of each: pending again, or final.
    """
    # Two statements: a worker that registers and claims in between must not look like one without a row.
    lost = column(await database.fetch(_LOST), "id")
    if not lost:
        return []
    return await database.fetch(_TAKE_BACK, lost, limit, limits.MAX_ERRORS_KEPT, limits.MAX_LOSSES, only)
