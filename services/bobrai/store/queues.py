"""Queues and their figures: what is waiting where, measured by the dispatchers and read by the API.

Counting a million rows costs a tenth of a second, so figures are measured at a bounded share of time and stored, and
nobody counts on request.
"""

from collections.abc import Mapping, Sequence

from bobrai.store.pool import Database, Executor, Record, column
from bobrai.store.queries import statement

_ENSURE = statement("ensure_queues")
_ALL = statement("queues")
_SET = statement("set_queue")
_TAKE_MEASURING = statement("take_measuring")
_MEASURE_DUE = statement("measure_due")
_MEASURE_WAITING = statement("measure_waiting")


async def ensure(database: Executor, names: Sequence[str]) -> None:
    """Make queues that do not exist yet."""
    await database.fetch(_ENSURE, list(names))


async def every(database: Executor) -> list[Record]:
    """Return every queue with its latest figures, by name."""
    return await database.fetch(_ALL)


async def change(
    database: Executor, name: str, *, paused: bool | None, sets_max_backlog: bool, max_backlog: int | None
) -> bool:
    """Pause or resume a queue, or set its limit (None: the setting's); returns whether the queue exists."""
    return bool(await database.fetch(_SET, name, paused, sets_max_backlog, max_backlog))


async def measure(
    database: Database, depths: Mapping[str, int | None], *, period_seconds: float, waiting_period_seconds: float
) -> list[Record]:
    """Measure the queues whose figures are older than the period, unless another dispatcher is at it.

    ``depths`` are the ready messages that the broker reported, None where unknown. Counting what is delayed costs
    more, so it has a period of its own. Returns the new figures.
    """
    async with database.transaction() as connection:
        taken = await connection.fetch(_TAKE_MEASURING, period_seconds, waiting_period_seconds)
        if not taken:
            return []
        waiting = [row["name"] for row in taken if row["waiting_too"]]
        if waiting:
            await connection.fetch(_MEASURE_WAITING, waiting)
        names = column(taken, "name")
        return await connection.fetch(_MEASURE_DUE, names, [depths.get(name) for name in names])
