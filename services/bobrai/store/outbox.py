"""What is due: hints leave the outbox for the broker, and come back when nothing else holds a task.

In: rows that submits, retries, replays and repairs wrote. Out: due hints for the dispatcher's relay.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from bobrai.domain.message import Hint
from bobrai.store.pool import Executor
from bobrai.store.queries import statement

_TAKE = statement("take_due")
_RETURN = statement("return_hints")
_NEXT_DUE = statement("next_due")
_RELEASE = statement("release_hints")
_SWEEP = statement("sweep")
_DUE_WAITS = statement("due_waits")

CHANNEL = "bobrai_outbox"  # NOTIFY channel on which every commit with new outbox rows speaks


class DueHint(NamedTuple):
    """An outbox row that has fallen due; the order of the fields is the order of urgency once sorted by ``urgency``."""

    task_id: int
    attempt: int
    queue: str
    priority: int
    due_at: datetime

    @property
    def hint(self) -> Hint:
        """What the message says."""
        return Hint(self.task_id, self.attempt)


async def take_due(transaction: Executor, rooms: Mapping[str, int]) -> list[DueHint]:
    """Remove due hints, per queue at most its room, sorted by priority (high first), then by due time.

    Must run inside a transaction that commits only after the broker confirmed them.
    """
    rows = await transaction.fetch(_TAKE, list(rooms), list(rooms.values()))
    return sorted((DueHint(*row) for row in rows), key=lambda due: (due.queue, -due.priority, due.due_at, due.task_id))


async def return_hints(transaction: Executor, hints: Sequence[DueHint]) -> None:
    """Put back hints that the broker refused, in the transaction that took them."""
    await transaction.fetch(_RETURN, *(list(values) for values in zip(*hints, strict=True)))


async def next_due(database: Executor) -> float | None:
    """Return the seconds until the next hint falls due (0 or less: now), or None when nothing waits."""
    seconds: float | None = (await database.fetch(_NEXT_DUE))[0][0]
    return seconds


async def release_hints(database: Executor, hints: Sequence[Hint]) -> int:
    """Give back hints that a worker did not claim; returns how many became outbox rows again."""
    ordered = sorted(set(hints))
    rows = await database.fetch(_RELEASE, [hint[0] for hint in ordered], [hint[1] for hint in ordered])
    return len(rows)


async def sweep(database: Executor, queue: str, grace_seconds: float, limit: int) -> int:
    """Give an outbox row to due tasks of a queue that nothing holds; returns how many.

    The caller must have seen that the broker's queue is empty.
    """
    return len(await database.fetch(_SWEEP, queue, grace_seconds, limit))


async def due_waits(database: Executor, queue: str) -> bool:
    """Return whether the queue has due hints that wait for the relay."""
    waits: bool = (await database.fetch(_DUE_WAITS, queue))[0][0]
    return waits
