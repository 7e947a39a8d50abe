"""What is due: hints leave the outbox for the broker, and come back when nothing else holds a task.

In: rows that submits, retries, replays and repairs wrote. Out: due hints for the dispatcher's relay.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from bobrai.domain.message import Hint
from bobrai.store.pool import Executor
from bobrai.store.queries import statement

_TAKE = statement("take_due")
_RETURN = statement("return_hints")
_NEXT_DUE = statement("next_due")
_RELEASE = statement("release_hints")
_UNHELD = statement("unheld")
_SWEEP = statement("sweep")
_WAKE = statement("wake_relay")
_DUE_WAITS = statement("due_waits")
_TRACE_CONTEXTS = statement("trace_contexts")

CHANNEL = "bobrai_outbox"  # NOTIFY channel on which every commit with new outbox rows speaks


class DueHint(NamedTuple):
    """An outbox row that has fallen due, and for how long it has been due, by the database's clock."""

    task_id: int
    attempt: int
    queue: str
    priority: int
    due_at: datetime
    waited_seconds: float


class Origin(NamedTuple):
    """Where some tasks were submitted: their trace context, and how long ago."""

    trace_context: str
    age_seconds: float


def urgency(due: DueHint) -> tuple[str, int, datetime, int]:
    """Return what hints are sorted by: their queue, then priority (high first), then due time."""
    return (due[2], -due[3], due[4], due[0])


async def take_due(transaction: Executor, rooms: Mapping[str, int], limit: int) -> list[DueHint]:
    """Remove due hints, per queue at most its room, sorted by queue, then priority (high first), then due time.

    When the limit cuts the work off, the first queues of the mapping are served. Must run inside a transaction that
    commits only after the broker confirmed them.
    """
    rows = await transaction.fetch(_TAKE, list(rooms), list(rooms.values()), limit)
    return sorted((DueHint(*row) for row in rows), key=urgency)


async def return_hints(transaction: Executor, hints: Sequence[DueHint]) -> None:
    """Put back hints that the broker refused, in the transaction that took them."""
    columns = [list(values) for values in zip(*hints, strict=True)]
    await transaction.fetch(_RETURN, *columns[:5])


async def next_due(database: Executor) -> float | None:
    """Return the seconds until the next hint falls due (0 or less: now), or None when nothing waits."""
    seconds: float | None = (await database.fetch(_NEXT_DUE))[0][0]
    return seconds


async def release_hints(database: Executor, hints: Sequence[Hint]) -> int:
    """Give back hints that a worker did not claim; returns how many became outbox rows again."""
    ordered = sorted(set(hints))
    rows = await database.fetch(_RELEASE, [hint[0] for hint in ordered], [hint[1] for hint in ordered])
    return len(rows)


async def unheld(database: Executor, queue: str, grace_seconds: float, limit: int) -> set[Hint]:
    """Return due tasks of a queue that at most a message holds, the oldest first when there are more than the limit."""
    return {Hint(row[0], row[1]) for row in await database.fetch(_UNHELD, queue, grace_seconds, limit)}


async def sweep(database: Executor, lost: Collection[Hint]) -> int:
    """Give an outbox row to those of these attempts that still wait; returns how many."""
    ordered = sorted(lost)
    return len(await database.fetch(_SWEEP, [hint[0] for hint in ordered], [hint[1] for hint in ordered]))


async def wake(database: Executor) -> None:
    """Have the relay look: something has changed that no new row says."""
    await database.fetch(_WAKE)


async def due_waits(database: Executor, queue: str) -> bool:
    """Return whether the queue has due hints that wait for the relay."""
    waits: bool = (await database.fetch(_DUE_WAITS, queue))[0][0]
    return waits


async def origins(database: Executor, task_ids: Sequence[int]) -> list[Origin]:
    """Return the distinct trace contexts of tasks; those without one are left out."""
    return [Origin(row[0], row[1]) for row in await database.fetch(_TRACE_CONTEXTS, list(task_ids))]
