"""Queues, from their making to their end, and their figures: what is waiting where, measured by the dispatchers.

A queue is removed in two steps: its row is marked, and from then on nobody sees it; a dispatcher deletes RabbitMQ's
queue and then the row. What waits in it all the same brings it back, so that no task is lost.

Counting a million rows costs a tenth of a second, so figures are measured at a bounded share of time and stored, and
nobody counts on request.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from msgspec import UNSET, UnsetType

from bobrai.domain.audit import Action, Author
from bobrai.domain.limiting import Limits
from bobrai.domain.limits import MAX_QUEUES
from bobrai.store import audit
from bobrai.store.pool import Database, Executor, Record, column
from bobrai.store.queries import statement
from bobrai.store.records import limits_text

_ENSURE = statement("ensure_queues")
_ALL = statement("queues")
_PUT = statement("put_queue")
_SET = statement("set_queue")
_REMOVE = statement("remove_queue")
_REMOVE_IDLE = statement("remove_idle_queues")
_RESTORE = statement("restore_queues")
_TOUCH = statement("touch_queues")
_REMOVED = statement("removed_queue")
_FORGET = statement("forget_queue")
_LIVE = statement("live_queues")
_TAKE_MEASURING = statement("take_measuring")
_MEASURE_DUE = statement("measure_due")
_MEASURE_WAITING = statement("measure_waiting")
_SET_PERIOD = statement("set_measuring_period")

_COUNT_TIMEOUT_SECONDS = 30.0  # a third of a microsecond per row: enough for many tens of millions that wait


async def ensure(database: Executor, names: Sequence[str]) -> None:
    """Make queues that do not exist."""
    await database.fetch(_ENSURE, list(names))


async def every(database: Executor) -> list[Record]:
    """Return every queue with its latest figures, by name."""
    return await database.fetch(_ALL)


async def live(database: Executor) -> dict[str, bool]:
    """Return the name of every queue, and whether it is paused."""
    return {row["name"]: row["paused"] for row in await database.fetch(_LIVE)}


async def running(database: Executor) -> list[str]:
    """Return the names of the queues that are not paused."""
    return [name for name, paused in (await live(database)).items() if not paused]


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a person wishes of a queue: UNSET, or a ``paused`` of None, stays. A backlog of None is the setting's."""

    paused: bool | None = None
    max_backlog: int | UnsetType | None = UNSET
    limits: Limits | UnsetType | None = UNSET

    def columns(self) -> tuple[object, ...]:
        """Return them as the statements take them: each that may be None is preceded by whether it is set."""
        limits = None if self.limits is UNSET else limits_text(self.limits)
        backlog = None if self.max_backlog is UNSET else self.max_backlog
        return self.paused, self.max_backlog is not UNSET, backlog, self.limits is not UNSET, limits


async def put(database: Executor, name: str, wishes: Wishes, *, by: Author) -> bool | None:
    """Make a queue that is kept until it is removed, or change one and keep it; returns whether it was made.

    None, and nothing done: the installation has as many queues as it may have.
    """
    rows = await database.fetch(_PUT, name, *wishes.columns(), *by, MAX_QUEUES)
    if not rows:
        return None
    made: bool = rows[0]["made"]
    audit.tell(rows[0]["audit_id"], Action.QUEUE_CREATE if made else Action.QUEUE_CHANGE, f"queue:{name}", by)
    return made


async def change(database: Executor, name: str, wishes: Wishes, *, by: Author) -> bool:
    """Change a queue; returns whether it exists."""
    rows = await database.fetch(_SET, name, *wishes.columns(), *by)
    if not rows:
        return False
    audit.tell(rows[0]["audit_id"], Action.QUEUE_CHANGE, f"queue:{name}", by)
    return True


class Removal(NamedTuple):
    """Whether a queue was removed, and if not what uses it."""

    removed: bool
    waits: bool  # whether a task waits in it
    running: int  # tasks
    workers: int  # living ones that consume it


async def remove(database: Executor, name: str, *, by: Author) -> Removal | None:
    """Remove a queue that nothing uses; None when there is no such queue."""
    rows = await database.fetch(_REMOVE, name, *by)
    if not rows:
        return None
    audit.tell(rows[0]["audit_id"], Action.QUEUE_REMOVE, f"queue:{name}", by)
    return Removal(*(rows[0][field] for field in Removal._fields))


async def remove_idle(database: Executor, *, retention_seconds: float) -> list[str]:
    """Remove the queues that a task made and none has used for so long; returns their names."""
    return column(await database.fetch(_REMOVE_IDLE, retention_seconds), "name")


async def restore(database: Executor) -> list[str]:
    """Make the rows of queues that have none and in which a task waits, or that a living worker consumes."""
    return column(await database.fetch(_RESTORE), "name")


async def touch(database: Executor, names: Collection[str]) -> None:
    """Note that tasks of these queues came by."""
    await database.fetch(_TOUCH, list(names))


async def removed(transaction: Executor, *, grace_seconds: float, besides: Collection[str]) -> str | None:
    """Return one queue that was removed so long ago, locked until the transaction ends, or None."""
    rows = await transaction.fetch(_REMOVED, grace_seconds, list(besides))
    return rows[0]["name"] if rows else None


async def forget(transaction: Executor, name: str) -> None:
    """Delete the row of a removed queue, once the broker has it no longer."""
    await transaction.fetch(_FORGET, name)


class Held(NamedTuple):
    """What limits hold back of a queue, and since when the oldest waits that they do not."""

    tasks: int
    oldest_due_at: datetime | None


_NONE_HELD: Final = Held(0, None)


class Measured(NamedTuple):
    """The figures of the queues that one round measured, and what the counting cost."""

    rows: list[Record]
    period_seconds: float  # after which their dispatcher measures again, as the others were told
    waiting_seconds: float | None  # None: what is delayed was not counted this time


async def measure(
    database: Database,
    depths: Mapping[str, int | None],
    *,
    period_seconds: float,
    takeover_periods: float,
    waiting_period_seconds: float,
    next_period: Callable[[float], float] | None = None,
    held: Callable[[Executor], Awaitable[Mapping[str, Held]]] | None = None,
) -> Measured:
    """Measure the queues that ``depths`` names when their figures are older than the period.

    Other queues are measured when their dispatcher has left out so many of its own periods: it is gone. A queue that
    another dispatcher is measuring is left out. ``depths`` are the ready messages that the broker reported,
    None where unknown. Counting what is delayed costs more, so it has a period of its own. ``next_period`` says when
    this dispatcher comes again after a count that took so many seconds, so that nobody takes its queues over before.
    ``held`` returns what limits hold back, by queue; without it nothing is.
    """
    async with database.transaction() as connection:
        taken = await connection.fetch(
            _TAKE_MEASURING, list(depths), period_seconds, takeover_periods, waiting_period_seconds
        )
        if not taken:
            return Measured([], period_seconds, None)
        started = time.perf_counter()
        waiting = [row["name"] for row in taken if row["waiting_too"]]
        if waiting:
            await connection.fetch(_MEASURE_WAITING, waiting, timeout=_COUNT_TIMEOUT_SECONDS)
        counted = time.perf_counter()
        names = column(taken, "name")
        kept = {} if held is None else await held(connection)
        of_each = [kept.get(name, _NONE_HELD) for name in names]
        counts = [
            names,
            [depths.get(name) for name in names],
            period_seconds,
            [each.tasks for each in of_each],
            [each.oldest_due_at for each in of_each],
        ]
        rows = await connection.fetch(_MEASURE_DUE, *counts, timeout=_COUNT_TIMEOUT_SECONDS)
        period = period_seconds if next_period is None else next_period(time.perf_counter() - counted)
        if period != period_seconds:
            await connection.fetch(_SET_PERIOD, names, period)
        return Measured(rows, period, counted - started if waiting else None)
