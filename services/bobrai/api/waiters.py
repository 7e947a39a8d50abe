"""Requests that wait for a task to end (``?wait=``): one query per look for all of them.

In: task ids. Out: a wake-up as soon as a task is found final, and for everybody when the process drains. The tasks
themselves are read by ``task_routes``.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Final

from bobrai.store import tasks
from bobrai.store.pool import Database
from bobrai.telemetry import metrics

_IDLE_SECONDS: Final = 3600.0
# Most tasks end soon: for this time after a waiter came, its task is looked up more often than every tick.
_EAGER_SECONDS: Final = 0.25
_EAGER_TICK_SECONDS: Final = 0.005


class Waiters:
    """Everybody who waits, by task id. ``run_once`` is one look; ``wake`` is called when a look should come early."""

    def __init__(self, database: Database, tick_seconds: float) -> None:
        self.wake: Callable[[], None] = _nobody
        self._database = database
        self._tick = tick_seconds
        self._eager_tick = min(tick_seconds, _EAGER_TICK_SECONDS)
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}
        self._young: deque[tuple[float, int]] = deque()  # until when, and which task; oldest first
        self._next_full_look = float("-inf")
        self._closed = False

    async def wait(self, task_id: int, seconds: float, gone: "asyncio.Future[None]") -> None:
        """Return when the task is final, the time is up, the client is gone or the process drains."""
        if self._closed:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(task_id, set()).add(future)
        calm = not self._young
        self._young.append((time.monotonic() + _EAGER_SECONDS, task_id))
        if calm:
            self.wake()
        with metrics.TASK_WAITERS.track_inprogress():
            try:
                await asyncio.wait({future, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._leave(task_id, future)

    def close(self) -> None:
        """Let everybody go, now and from now on."""
        self._closed = True
        for task_id in list(self._waiting):
            self._release(task_id)

    async def run_once(self) -> float:
        """Look once: for those who came lately, and every tick for all; returns the seconds until the next look."""
        now = time.monotonic()
        while self._young and self._young[0][0] < now:
            self._young.popleft()
        wanted: Collection[int] = self._waiting
        if now < self._next_full_look:
            wanted = {task_id for _, task_id in self._young if task_id in self._waiting}
        else:
            self._next_full_look = now + self._tick
        if wanted:
            for task_id in await tasks.final_of(self._database, wanted):
                self._release(task_id)
        if not self._waiting:
            self._young.clear()  # so that the next waiter, however soon, finds the loop calm and wakes it
            return _IDLE_SECONDS
        return self._eager_tick if self._young else self._tick

    def _release(self, task_id: int) -> None:
        for future in self._waiting.pop(task_id, ()):
            if not future.done():
                future.set_result(None)

    def _leave(self, task_id: int, future: "asyncio.Future[None]") -> None:
        others = self._waiting.get(task_id)
        if others is not None:
            others.discard(future)
            if not others:
                del self._waiting[task_id]


def _nobody() -> None:
    """Wake nobody: the loop is not running yet."""
