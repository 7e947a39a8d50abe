"""Lets tasks that were lost with a worker run alone, so that the next death names its culprit and hurts nobody else.

In: claims of tasks with losses. Out: places, as many as memory allows, each with a process of its own. A process that
ran a task to its end is kept for the next one for a while.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from bobrai.domain.task import Claim
from bobrai.settings import Settings
from bobrai.telemetry import logs, metrics
from bobrai.worker import memory
from bobrai.worker.channel import Ended
from bobrai.worker.child import Child, ProcessDied

log = logs.get_logger(__name__)

_IDLE_SECONDS: Final = 60.0


class Isolation:
    """The processes of this worker in which tasks run alone."""

    def __init__(self, settings: Settings, on_progress: Callable[[int, int, str], None]) -> None:
        self.on_progress = on_progress
        self._settings = settings
        self._most = min(settings.worker.isolated, settings.worker.concurrency)
        self._plan = memory.Plan(self._most)
        self._places: set[Place] = set()
        self._children: set[Child] = set()
        self._idle: list[Child] = []
        metrics.TASKS_ISOLATED.set_function(lambda: len(self._places))

    @property
    def is_on(self) -> bool:
        """Whether tasks that were lost run alone."""
        return self._most > 0

    def place_for(self, claim: Claim) -> "Place | None":
        """Return a place, to be freed by ``leave``; None when there is none now."""
        if not self._children:
            self._plan = memory.plan_here(self._most)
        plan = self._plan
        # Where the first place of several was too small for it, the next one gets all the memory there is.
        whole = plan.places > 1 and (claim.failures > 0 or claim.attempt >= claim.max_attempts)
        whole = whole and plan.whole_bytes is not None
        if whole and self._places:
            return None
        if len(self._places) >= plan.places or any(place.is_whole for place in self._places):
            return None
        place = Place(self, claim, plan.whole_bytes if whole else plan.share_bytes, is_whole=whole)
        self._places.add(place)
        return place

    async def take(self, *, anew: bool) -> Child:
        """Return a process that runs nothing; raises ProcessDied when it does not come up."""
        while self._idle:
            child = self._idle.pop()
            if child.is_alive and not anew:
                return child
            self.forget(child)
        child = await Child.start(self._settings)
        self._children.add(child)
        return child

    def put_back(self, child: Child) -> None:
        """Keep a process for the next task, for a while."""
        self._idle.append(child)
        asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._retire, child)

    def forget(self, child: Child) -> None:
        """End a process for good."""
        child.kill()
        self._children.discard(child)

    def leave(self, place: "Place") -> None:
        """Free a place."""
        self._places.discard(place)

    def close(self) -> None:
        """End all processes: those that run something at once."""
        for child in self._idle:
            child.close()
            self._children.discard(child)
        self._idle.clear()
        for child in list(self._children):
            self.forget(child)

    def _retire(self, child: Child) -> None:
        if child in self._idle:
            self._idle.remove(child)
            child.close()
            self._children.discard(child)


class Place:
    """One task's turn to run alone."""

    def __init__(self, isolation: Isolation, claim: Claim, memory_bytes: int | None, *, is_whole: bool) -> None:
        self.is_whole = is_whole
        self._isolation = isolation
        self._claim = claim
        self._memory_bytes = memory_bytes
        self._child: Child | None = None
        self._given_up = False
        self._killing: asyncio.TimerHandle | None = None

    async def prepare(self) -> bool:
        """Get a process for it; returns False when none comes up, so that the task has to run in the worker."""
        try:
            self._child = await self._isolation.take(anew=self.is_whole)
        except ProcessDied as error:
            metrics.ISOLATION_FAILURES.inc()
            log.error("isolation.failed", error=f"the process {error}")  # noqa: TRY400 - it is not ours
            return False
        return True

    async def run(self, worker_id: int) -> Ended:
        """Run the attempt and return how it ended; raises ProcessDied. ``prepare`` comes first."""
        child, claim = self._child, self._claim
        if child is None or self._given_up:
            if child is not None:
                self._isolation.put_back(child)
            raise ProcessDied("was not needed any more")

        def on_progress(text: str) -> None:
            self._isolation.on_progress(claim.task_id, claim.attempt, text)

        try:
            ended = await child.run(claim, worker_id, self._memory_bytes, on_progress)
            if self._memory_bytes is not None and _lacked_memory(ended):
                raise ProcessDied(f"had no more memory: it may use {self._memory_bytes >> 20} MiB")
        except BaseException:
            self._isolation.forget(child)
            raise
        if self._given_up or (ended.outcome is not None and ended.outcome.error is not None):
            # What was told to end may go on in there, and what failed may have left anything.
            self._isolation.forget(child)
        else:
            self._isolation.put_back(child)
        self._child = None
        return ended

    def stop(self, *, cancelled: bool, grace_seconds: float) -> None:
        """Ask the attempt to end, and end its process when it does not."""
        self._given_up = True
        if self._child is not None:
            self._child.stop(cancelled=cancelled)
            self._killing = asyncio.get_running_loop().call_later(grace_seconds, self.kill)

    def kill(self) -> None:
        """End the attempt with its process."""
        self._given_up = True
        if self._child is not None:
            self._child.kill()

    def leave(self) -> None:
        """Free the place."""
        if self._killing is not None:
            self._killing.cancel()
        self._isolation.leave(self)

    @property
    def died_by_itself(self) -> bool:
        """Whether nobody has told the attempt to end."""
        return not self._given_up


def _lacked_memory(ended: Ended) -> bool:
    error = ended.outcome and ended.outcome.error
    return bool(error and error.type == "MemoryError")
