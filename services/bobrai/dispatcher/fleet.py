"""Which queues run, who works on them and what limits there are: what the relay sizes its windows and bundles by.

In: the rows of `queues`, `task_types` and `workers`, read again a few times a second. Out: names of running queues, one
Crew for each, and what is limited. A moment's staleness costs a bundle of the wrong size, or a hint that nobody may
claim.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bobrai.store import admissions, queues, workers
from bobrai.store.admissions import NOTHING_LIMITED, Limited
from bobrai.store.pool import Executor
from bobrai.store.workers import LiveWorker

REFRESH_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Crew:
    """The living workers of one queue; speeds are tasks per second, 0 while nobody has reported one."""

    workers: int = 0
    slots: int = 0
    slowest_per_second: float = 0.0  # of the workers that reported
    total_per_second: float = 0.0


NOBODY: Final = Crew()


def crews(living: Iterable[LiveWorker]) -> dict[str, Crew]:
    """Return the crew of every queue that some worker consumes."""
    by_queue: dict[str, list[LiveWorker]] = {}
    for worker in living:
        for queue in worker.queues:
            by_queue.setdefault(queue, []).append(worker)
    return {queue: _crew(queue, members) for queue, members in by_queue.items()}


def _crew(queue: str, members: list[LiveWorker]) -> Crew:
    speeds = [worker.speeds[queue] for worker in members if worker.speeds.get(queue, 0.0) > 0.0]
    return Crew(
        workers=len(members),
        slots=sum(worker.concurrency for worker in members),
        slowest_per_second=min(speeds, default=0.0),
        total_per_second=sum(speeds),
    )


class Fleet:
    """The latest reading."""

    def __init__(self, database: Executor) -> None:
        self._database = database
        self._read_at = float("-inf")
        self.queues: list[str] = []
        self.known: Collection[str] = ()  # the paused ones too
        self.crews: Mapping[str, Crew] = {}
        self.limited: Limited = NOTHING_LIMITED

    def crew(self, queue: str) -> Crew:
        """Return who works on a queue."""
        return self.crews.get(queue, NOBODY)

    @property
    def stale(self) -> bool:
        """Whether it is time to read again."""
        return time.monotonic() - self._read_at > REFRESH_SECONDS

    async def refresh(self) -> None:
        """Read again; raises DatabaseUnavailable."""
        live = await queues.live(self._database)
        self.known = live.keys()
        self.queues = [name for name, paused in live.items() if not paused]
        self.crews = crews(await workers.live(self._database))
        self.limited = await admissions.limited(self._database)
        self._read_at = time.monotonic()
