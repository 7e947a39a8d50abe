"""One task's turn in a process of its own.

In: a claim, and what its process may take. Out: how its attempt ended, or that the process died and of what. A process
that ran a task to its end is kept for the next one.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from msgspec import structs

from bobrai.domain.errors import type_name
from bobrai.domain.task import Claim
from bobrai.telemetry import logs, metrics
from bobrai.worker.attempt import fields_of
from bobrai.worker.channel import Ended
from bobrai.worker.child import Child, ProcessDied, ProcessProvesNothing
from bobrai.worker.guard import MemoryGuard
from bobrai.worker.memory import Container
from bobrai.worker.processes import Processes

log = logs.get_logger(__name__)

_MIB: Final = 1024 * 1024
_LEAST_PATIENCE_SECONDS: Final = 5.0  # with a process that comes up, however short the timeout is
_WEARING: Final = frozenset({"timeout", "memory_limit"})


@dataclass(frozen=True, slots=True)
class Around:
    """What all places of a worker share."""

    processes: Processes
    guard: MemoryGuard
    container: Container | None
    on_progress: Callable[[int, int, str], None]
    on_left: Callable[["Place"], None]


class Place:
    """A place for one claim, to be left once.

    ``memory_bytes`` is what the process may take, None what the container has. ``is_declared``: the type's handler
    always runs in a process; otherwise the task is suspected to have ended a worker. ``is_whole``: no other process
    may be there meanwhile.
    """

    def __init__(
        self, around: Around, claim: Claim, memory_bytes: int | None, *, is_declared: bool, is_whole: bool = False
    ) -> None:
        self.is_declared = is_declared
        self.is_whole = is_whole
        self._around = around
        self._claim = claim
        self._since = time.monotonic()
        self._memory_bytes = memory_bytes
        self._child: Child | None = None
        self._given_up = False
        self._needs_fresh = is_whole
        self._killing: asyncio.TimerHandle | None = None
        self._why: ProcessDied | None = None

    async def prepare(self) -> bool:
        """Get a process for it; returns False when none comes up, or not before a declared type's timeout."""
        patience = max(self._claim.timeout_seconds, _LEAST_PATIENCE_SECONDS) if self.is_declared else None
        # One that has grown with others' tasks leaves this one no room to be blamed for.
        most_bytes = self._memory_bytes // 2 if self.is_declared and self._memory_bytes is not None else None
        try:
            async with asyncio.timeout(patience):
                self._child = await self._around.processes.take(anew=self._needs_fresh, most_bytes=most_bytes)
        except Exception as error:  # noqa: BLE001 - whatever keeps a process from coming up must not keep the task
            metrics.ISOLATION_FAILURES.inc()
            said = f"the process {error}" if isinstance(error, ProcessDied) else type_name(error)
            said = f"no process has come up within {patience:g} s" if isinstance(error, TimeoutError) else said
            log.error("isolation.failed", error=said)  # noqa: TRY400 - it is not ours
            return False
        return True

    @property
    def is_prepared(self) -> bool:
        """Whether there is a process to be told."""
        return self._child is not None

    async def run(self, worker_id: int, trace_context: str = "") -> Ended:
        """Run the attempt and return how it ended; raises ProcessDied. ``prepare`` comes first.

        Raises ProcessProvesNothing when something else may have ended the process: ``prepare`` and ``run`` again.
        ``trace_context`` says where the attempt's span stands.
        """
        child = self._child
        claim = structs.replace(self._claim.after(time.monotonic() - self._since), trace_context=trace_context)
        if child is None:
            raise ProcessDied("was not prepared")
        others = self.others_ran
        child.output.begin(lambda: fields_of(claim))
        self._around.guard.watch(child.pid, self._memory_bytes, self._end_too_large, yields=self.is_declared)
        try:
            ended = self._blaming_memory(await child.run(claim, worker_id, self._spare_bytes, self._around.on_progress))
        except ProcessDied as error:
            self._around.processes.forget(child)
            died, self._why, self._child = self._why or error, None, None
            if (others and not self._given_up) or isinstance(error, ProcessProvesNothing):
                self._needs_fresh = True
                raise ProcessProvesNothing(str(died)) from None
            died.traceback = died.traceback or error.traceback
            raise died from None
        except BaseException:
            self._around.processes.forget(child)
            raise
        finally:
            self._around.guard.forget(child.pid)
            child.output.end()
        if self._given_up or self._may_be_worn(ended):
            self._around.processes.retire(child)
        else:
            self._around.processes.put_back(child)
        self._child = None
        return ended

    def stop(self, *, cancelled: bool, grace_seconds: float) -> None:
        """Ask the attempt to end, and end its process when it does not."""
        self._given_up = True
        if self._child is not None:
            self._child.stop(cancelled=cancelled)
            self._killing = asyncio.get_running_loop().call_later(grace_seconds, self.kill)

    @property
    def others_ran(self) -> bool:
        """Whether something else that has run in its process before may be to blame for what becomes of it."""
        child = self._child
        return child is not None and (child.has_leftovers if self.is_declared else child.served > 0)

    def kill_unanswering(self) -> None:
        """End a process that keeps no timeout any more: for that, too, what ran in it before may be to blame."""
        self._end_for(ProcessDied("did not answer"))

    def kill(self) -> None:
        """End the attempt with its process."""
        self._given_up = True
        if self._child is not None:
            self._child.kill()

    def leave(self) -> None:
        """Free the place."""
        if self._killing is not None:
            self._killing.cancel()
        self._around.on_left(self)

    @property
    def _spare_bytes(self) -> int | None:
        """What the attempt may reserve at once: no more than it could ever take. What it takes is the guard's."""
        container = self._around.container
        limits = (self._memory_bytes if self.is_declared else None, None if container is None else container.limit)
        return min((limit for limit in limits if limit is not None), default=None)

    def _end_too_large(self, taken: int, container_uses: int | None) -> None:
        how = self._lack(f"took {_whole(taken)} MiB of memory at its peak", container_uses)
        self._end_for(ProcessDied(how, "memory_limit"))

    def _end_for(self, why: ProcessDied) -> None:
        if (child := self._child) is not None:
            self._why = why
            child.kill()

    def _lack(self, taken: str, container_uses: int | None = None) -> str:
        container = self._around.container
        if self._memory_bytes is not None and container_uses is None:
            return f"{taken}: it may use {self._memory_bytes // _MIB} MiB here"
        limit = 0 if container is None else container.limit // _MIB
        uses = "" if container_uses is None else f" and used {container_uses // _MIB} MiB"
        return f"{taken}: the worker's container may use {limit} MiB{uses}"

    def _blaming_memory(self, ended: Ended) -> Ended:
        """Return how it ended, where a MemoryError is for want of the memory that it may use; raises ProcessDied."""
        outcome = ended.outcome
        if outcome is None or (error := outcome.error) is None or self._spare_bytes is None:
            return ended
        if error.type != "MemoryError" or error.reason != "error":  # as when its type calls that non-retryable
            return ended
        if not self.is_declared:
            raise ProcessDied(self._lack("had no more memory"))
        said = self._lack(f"it had taken {_whole(ended.peak_bytes)} MiB of memory at its peak")
        error = replace(error, message=f"{error.message} ({said})".strip(), reason="memory_limit")
        return structs.replace(ended, outcome=structs.replace(outcome, error=error))

    def _may_be_worn(self, ended: Ended) -> bool:
        """Return whether what ran may have left anything behind that an end by itself does not."""
        error = None if ended.outcome is None else ended.outcome.error
        if error is None or ended.is_worn:
            return ended.is_worn
        return not self.is_declared or error.reason in _WEARING


def _whole(size: int) -> int:
    """Return bytes as MiB, rounded up: what is over a limit is to read so."""
    return -(-size // _MIB)
