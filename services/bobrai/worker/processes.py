"""The processes of this worker in which attempts run: kept for the next ones, and replaced in time.

In: wishes for one that runs nothing. Out: children, warm where a type's handlers run in processes: one more than is in
use has imported the handlers already, so that the next attempt waits for nothing, whatever became of the last.
"""

import asyncio
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
_MIB: Final = 1024 * 1024


class Processes:
    """All of them."""

    def __init__(self, settings: Settings) -> None:
        self._starter = Starter(settings)
        self._max_tasks = settings.worker.process_max_tasks
        self._max_bytes = settings.worker.process_max_memory_mib * _MIB
        self._children: set[Child] = set()
        self._idle: list[Child] = []
        self._is_warm = False
        self._warming: asyncio.Task[None] | None = None
        metrics.WORKER_PROCESSES.set_function(lambda: len(self._children))

    def idle_bytes(self) -> int:
        """Return the memory that those which run nothing have to themselves."""
        return sum(memory.private_bytes(child.pid) for child in self._idle)

    def keep_warm(self) -> None:
        """Have one more than is in use from now on."""
        self._is_warm = True
        self._warm()

    async def take(self, *, anew: bool, most_bytes: int | None = None) -> Child:
        """Return a process that runs nothing; raises ProcessDied when it does not come up.

        ``anew``: one in which nothing has run. ``most_bytes``: one that takes no more now, if it is not new.
        """
        try:
            for child in reversed(self._idle):
                if not child.is_alive:
                    self._idle.remove(child)
                    self.forget(child)
                elif not child.served or (not anew and (most_bytes is None or child.resident_bytes <= most_bytes)):
                    self._idle.remove(child)
                    return child
            return await self._start()
        finally:
            self._warm()

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
        if self._warming is not None:
            self._warming.cancel()
        self._idle.clear()
        for child in list(self._children):
            self.forget(child)
        self._starter.close()

    async def _start(self) -> Child:
        child = await self._starter.start()
        self._children.add(child)
        return child

    def _warm(self) -> None:
        if self._is_warm and not self._idle and self._warming is None:
            self._warming = asyncio.create_task(self._add_one())

    async def _add_one(self) -> None:
        try:
            self.put_back(await self._start())
        except Exception as error:  # noqa: BLE001 - whoever needs one tries again, and says so
            said = f"the process {error}" if isinstance(error, ProcessDied) else type_name(error)
            log.warning("isolation.not_warm", error=said)
        finally:
            self._warming = None

    def _retire_idle(self, child: Child, served: int) -> None:
        if child in self._idle and child.served == served and not (self._is_warm and len(self._idle) == 1):
            self._idle.remove(child)
            self.retire(child)
