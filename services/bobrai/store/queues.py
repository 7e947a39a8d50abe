"""Queues and their figures: what is waiting where, measured by the dispatchers and read by the API.

Counting a million rows costs a tenth of a second, so figures are measured at a bounded share of time and stored, and
nobody counts on request.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bobrai.store.pool import Database, Executor, Record, column
from bobrai.store.queries import statement

_ENSURE = statement("ensure_queues")
_ALL = statement("queues")
_SET = statement("set_queue")
_RUNNING = statement("running_queues")
_TAKE_MEASURING = statement("take_measuring")
_MEASURE_DUE = statement("measure_due")
_MEASURE_WAITING = statement("measure_waiting")
_SET_PERIOD = statement("set_measuring_period")

_COUNT_TIMEOUT_SECONDS = 30.0  # a third of a microsecond per row: enough for many tens of millions that wait


async def ensure(database: Executor, names: Sequence[str]) -> None:
    """Make queues that do not exist yet."""
    await database.fetch(_ENSURE, list(names))


async def every(database: Executor) -> list[Record]:
    """Return every queue with its latest figures, by name."""
    return await database.fetch(_ALL)


async def running(database: Executor) -> list[str]:
    """Return the names of the queues that are not paused."""
    return column(await database.fetch(_RUNNING), "name")


async def change(
    database: Executor, name: str, *, paused: bool | None, sets_max_backlog: bool, max_backlog: int | None
) -> bool:
    """Pause or resume a queue, or set its limit (None: the setting's); returns whether the queue exists."""
    return bool(await database.fetch(_SET, name, paused, sets_max_backlog, max_backlog))


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
) -> Measured:
    """Measure the queues that ``depths`` names when their figures are older than the period.

    Other queues are measured when their dispatcher has left out so many of its own periods: it is gone. A queue that
    another dispatcher is measuring is left out. ``depths`` are the ready messages that the broker reported,
    None where unknown. Counting what is delayed costs more, so it has a period of its own. ``next_period`` says when
    this dispatcher comes again after a count that took so many seconds, so that nobody takes its queues over before.
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
        counts = [names, [depths.get(name) for name in names], period_seconds]
        rows = await connection.fetch(_MEASURE_DUE, *counts, timeout=_COUNT_TIMEOUT_SECONDS)
        period = period_seconds if next_period is None else next_period(time.perf_counter() - counted)
        if period != period_seconds:
            await connection.fetch(_SET_PERIOD, names, period)
        return Measured(rows, period, counted - started if waiting else None)
