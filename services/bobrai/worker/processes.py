"""The processes of this worker in which attempts run: kept for the next ones, and replaced in time.

In: wishes for one that runs nothing. Out: children, warm where a type's handlers run in processes: one more than is in
use has imported the handlers already, so that the next attempt waits for nothing, whatever became of the last. One that
is started is nobody's until it is there: who does not wait for it any more leaves it to the next.
"""

import asyncio
import contextvars
from collections import deque
from typing import Final

from bobrai.domain.errors import type_name
from bobrai.settings import Settings
from bobrai.telemetry import logs, metrics
from bobrai.worker import memory
from bobrai.worker.child import Child, ProcessDied
from bobrai.worker.starting import Starter

log = logs.get_logger(__name__)

_IDLE_SECONDS: Final = 60.0
_LEAVE_SECONDS: Final = 5.0
_SLOW_SECONDS: Final = 10.0  # a start that takes longer is told of
_MIB: Final = 1024 * 1024


class Processes:
    """All of them."""

    def __init__(self, settings: Settings) -> None:
        self._starter = Starter(settings)
        self._max_tasks = settings.worker.process_max_tasks
        self._max_bytes = settings.worker.process_max_memory_mib * _MIB
        self._children: set[Child] = set()
        self._idle: list[Child] = []
        self._waiting: deque[asyncio.Future[Child]] = deque()
        self._starting: set[asyncio.Task[None]] = set()
        self._is_warm = False
        metrics.WORKER_PROCESSES.set_function(lambda: len(self._children))

    def idle_bytes(self) -> int:
        """Return the memory that those which run nothing have to themselves."""
        return sum(memory.private_bytes(child.pid) for child in self._idle)

    def keep_warm(self) -> None:
        """Have one more than is in use from now on."""
        self._is_warm = True
        self._start_what_is_missing()

    async def take(self, *, anew: bool, most_bytes: int | None = None) -> Child:
        """Return a process that runs nothing; raises ProcessDied when it does not come up.

        ``anew``: one in which nothing has run. ``most_bytes``: one that takes no more now, if it is not new.
        """
        for child in reversed(self._idle):
            if not child.is_alive:
                self._idle.remove(child)
                self.forget(child)
            elif not child.served or (not anew and (most_bytes is None or child.resident_bytes <= most_bytes)):
                self._idle.remove(child)
                self._start_what_is_missing()
                return child
        waiting: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._start_what_is_missing()
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self.put_back(waiting.result())
            raise

    def put_back(self, child: Child) -> None:
        """Keep a process for the next task, for a while, unless it has served or grown enough."""
        grown = self._max_bytes and child.resident_bytes > self._max_bytes
        if grown or (self._max_tasks and child.served >= self._max_tasks):
            self.retire(child)
            return
        self._idle.append(child)
        asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._retire_idle, child, child.served)

    def retire(self, child: Child) -> None:
        """Let a process end by itself, with a moment to send its spans."""
        child.close()
        asyncio.get_running_loop().call_later(_LEAVE_SECONDS, self.forget, child)

    def forget(self, child: Child) -> None:
        """End a process at once."""
        child.kill()
        child.close()
        self._children.discard(child)

    def close(self) -> None:
        """End all processes."""
        self._is_warm = False
        for starting in self._starting:
            starting.cancel()
        self._idle.clear()
        for child in list(self._children):
            self.forget(child)
        self._starter.close()

    def _start_what_is_missing(self) -> None:
        """Start one for each that waits, and a spare one."""
        wanted = len(self._waiting) + (self._is_warm and not self._idle)
        for _ in range(wanted - len(self._starting)):
            # Not in the context of the attempt that wants it.
            starting = asyncio.get_running_loop().create_task(self._start(), context=contextvars.Context())
            self._starting.add(starting)
            starting.add_done_callback(self._starting.discard)

    async def _start(self) -> None:
        slow = asyncio.get_running_loop().call_later(_SLOW_SECONDS, _tell_of_slow_start)
        try:
            child = await self._starter.start()
        except Exception as error:  # noqa: BLE001 - whatever keeps a process from coming up
            self._failed(error)
            return
        finally:
            slow.cancel()
        self._children.add(child)
        if (waiting := self._next_waiting()) is not None:
            waiting.set_result(child)
        else:
            self.put_back(child)

    def _failed(self, error: Exception) -> None:
        if (waiting := self._next_waiting()) is not None:
            waiting.set_exception(error)
        else:
            said = f"the process {error}" if isinstance(error, ProcessDied) else type_name(error)
            log.warning("isolation.not_warm", error=said)

    def _next_waiting(self) -> "asyncio.Future[Child] | None":
        while self._waiting:
            if not (waiting := self._waiting.popleft()).done():
                return waiting
        return None

    def _retire_idle(self, child: Child, served: int) -> None:
        if child in self._idle and child.served == served and not (self._is_warm and len(self._idle) == 1):
            self._idle.remove(child)
            self.retire(child)


def _tell_of_slow_start() -> None:
    log.warning("isolation.slow", seconds=_SLOW_SECONDS)
