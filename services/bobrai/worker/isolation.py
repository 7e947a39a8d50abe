"""Lets tasks that were lost with a worker run alone, so that the next death names its culprit and hurts nobody else.

In: claims of tasks with losses. Out: places, as many as memory allows, each with a process of its own. A process that
ran a task to its end is kept for the next one for a while.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from bobrai.domain.errors import type_name
from bobrai.domain.task import Claim
from bobrai.settings import Settings
from bobrai.telemetry import logs, metrics
from bobrai.worker import memory
from bobrai.worker.channel import Ended
from bobrai.worker.child import Child, ProcessDied
from bobrai.worker.guard import MemoryGuard

log = logs.get_logger(__name__)

_IDLE_SECONDS: Final = 60.0
_LEAVE_SECONDS: Final = 5.0
_folder: Path | None = None  # None: where this process is at the moment


def start_in(folder: Path) -> None:
    """Start processes in this folder, where the handlers' modules are looked for."""
    global _folder
    _folder = folder


class Isolation:
    """The processes of this worker in which tasks run alone."""

    def __init__(self, settings: Settings, on_progress: Callable[[int, int, str], None]) -> None:
        self.on_progress = on_progress
        self._settings = settings
        self._most = min(settings.worker.isolated, settings.worker.concurrency)
        self.container = memory.container()
        self.guard = MemoryGuard()
        self._plan = memory.Plan(self._most)
        self._places: set[Place] = set()
        self._children: set[Child] = set()
        self._idle: list[Child] = []
        metrics.TASKS_ISOLATED.set_function(lambda: len(self._places))

    def place_for(self, claim: Claim) -> "Place | None":
        """Return a place, to be freed by ``leave``; None when there is none now."""
        if not self._children:
            self._plan = self._planned()
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
        child = await Child.start(self._settings, _folder)
        self._children.add(child)
        return child

    def put_back(self, child: Child) -> None:
        """Keep a process for the next task, for a while."""
        self._idle.append(child)
        asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._retire_idle, child)

    def retire(self, child: Child) -> None:
        """Let a process end by itself, with a moment to send its spans."""
        child.close()
        asyncio.get_running_loop().call_later(_LEAVE_SECONDS, self.forget, child)

    def forget(self, child: Child) -> None:
        """End a process at once."""
        child.kill()
        child.close()
        self._children.discard(child)

    def leave(self, place: "Place") -> None:
        """Free a place."""
        self._places.discard(place)

    def close(self) -> None:
        """End all processes."""
        self._idle.clear()
        for child in list(self._children):
            self.forget(child)

    def _planned(self) -> memory.Plan:
        limit, used = (None, 0) if self.container is None else (self.container.limit, self.container.used())
        return memory.plan(self._most, limit=limit, used=used, resident=memory.resident_bytes())

    def _retire_idle(self, child: Child) -> None:
        if child in self._idle:
            self._idle.remove(child)
            self.retire(child)


class ProcessProvesNothing(ProcessDied):
    """The process is gone, and what ran in it before may be to blame, as with a thread that it left."""


class Place:
    """One task's turn to run alone."""

    def __init__(self, isolation: Isolation, claim: Claim, memory_bytes: int | None, *, is_whole: bool) -> None:
        self.is_whole = is_whole
        self._isolation = isolation
        self._claim = claim
        self._memory_bytes = memory_bytes
        self._child: Child | None = None
        self._given_up = False
        self._needs_fresh = is_whole
        self._killing: asyncio.TimerHandle | None = None
        self._why = ""

    async def prepare(self) -> bool:
        """Get a process for it; returns False when none comes up, so that the task has to run in the worker."""
        try:
            self._child = await self._isolation.take(anew=self._needs_fresh)
        except Exception as error:  # noqa: BLE001 - whatever keeps a process from coming up must not keep the task
            metrics.ISOLATION_FAILURES.inc()
            said = f"the process {error}" if isinstance(error, ProcessDied) else type_name(error)
            log.error("isolation.failed", error=said)  # noqa: TRY400 - it is not ours
            return False
        return True

    @property
    def is_prepared(self) -> bool:
        """Whether there is a process to be told."""
        return self._child is not None

    async def run(self, worker_id: int, trace_context: str = "") -> Ended:
        """Run the attempt and return how it ended; raises ProcessDied. ``prepare`` comes first.

        Raises ProcessProvesNothing when another task had run in the process that died: ``prepare`` and ``run`` again.
        ``trace_context`` says where the attempt's span stands.
        """
        child, claim = self._child, replace(self._claim, trace_context=trace_context)
        if child is None:
            raise ProcessDied("was not prepared")
        used = child.has_served
        container, guard = self._isolation.container, self._isolation.guard
        if self._memory_bytes is not None:
            guard.watch(child.pid, self._memory_bytes, self._end_too_large)
        try:
            # No attempt needs to reserve more at once than the whole container has; what it takes is the guard's.
            spare_bytes = None if container is None else container.limit
            ended = await child.run(claim, worker_id, spare_bytes, self._isolation.on_progress)
            if container is not None and _lacked_memory(ended):
                raise ProcessDied(f"had no more memory: it may use {(self._memory_bytes or 0) >> 20} MiB here")
        except ProcessDied as error:
            self._isolation.forget(child)
            how, self._why, self._child = self._why or str(error), "", None
            if used and not self._given_up:
                self._needs_fresh = True
                raise ProcessProvesNothing(how) from None
            raise ProcessDied(how) from None
        except BaseException:
            self._isolation.forget(child)
            raise
        finally:
            guard.forget(child.pid)
        if self._given_up or (ended.outcome is not None and ended.outcome.error is not None):
            # What was told to end may go on in there, and what failed may have left anything.
            self._isolation.retire(child)
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

    @property
    def is_used(self) -> bool:
        """Whether something else has run in its process before."""
        return self._child is not None and self._child.has_served

    def kill_unanswering(self) -> None:
        """End a process that keeps no timeout any more: for that, too, what ran in it before may be to blame."""
        self._end_for("did not answer")

    def kill(self) -> None:
        """End the attempt with its process."""
        self._given_up = True
        if self._child is not None:
            self._child.kill()

    def _end_too_large(self, taken: int) -> None:
        self._end_for(f"took {taken >> 20} MiB of memory: it may use {(self._memory_bytes or 0) >> 20} MiB here")

    def _end_for(self, why: str) -> None:
        if (child := self._child) is not None:
            self._why = why
            child.kill()

    def leave(self) -> None:
        """Free the place."""
        if self._killing is not None:
            self._killing.cancel()
        self._isolation.leave(self)


def _lacked_memory(ended: Ended) -> bool:
    error = ended.outcome and ended.outcome.error
    return bool(error and error.type == "MemoryError")
