"""The number that workers are scaled by, per queue, and whether it may still be believed.

In: the figures that the dispatchers measured. Out: backlogs, for ``external_metrics`` and for the API's answer to KEDA.
A figure that nobody renewed is no figure: an autoscaler that took it for zero would stop workers that are needed.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from bobrai.domain.errors import FiguresUnknown
from bobrai.store.pool import Executor
from bobrai.store.queries import statement

_BACKLOGS = statement("backlogs")


class Backlog(NamedTuple):
    """The tasks of a queue that are due or run, and how old that figure is; None: never measured."""

    queue: str
    tasks: int
    measured_at: datetime | None
    age_seconds: float | None


async def every(database: Executor) -> list[Backlog]:
    """Return the backlog of every queue, by name, however old."""
    rows = await database.fetch(_BACKLOGS)
    return [Backlog(row["name"], row["tasks"], row["measured_at"], row["age_seconds"]) for row in rows]


def require_fresh(found: Iterable[Backlog], stale_seconds: float) -> None:
    """Raise FiguresUnknown when one of the figures is older than ``stale_seconds``."""
    for backlog in found:
        if backlog.age_seconds is None:
            raise FiguresUnknown(f"queue {backlog.queue!r} has not been measured yet")
        if backlog.age_seconds > stale_seconds:
            raise FiguresUnknown(f"queue {backlog.queue!r} was last measured {backlog.age_seconds:.0f} s ago")
