"""A process of this worker in which attempts run, one after another: see `isolated.py` for its inside.

In: a process that has been started (`starting.py`), then attempts. Out: how each ended, or how the process died; the
worker outlives it.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Final, Protocol

from bobrai.domain.task import Claim
from bobrai.worker.channel import Channel, Ended, Progress, Ready, Run, Stop
from bobrai.worker.output import Output

_EXIT_SECONDS: Final = 2.0  # between the end of the connection and that of the process


class ProcessDied(Exception):
    """The process is gone before the attempt had ended; the message says how.

    ``reason`` is the error's: ``crashed`` or ``memory_limit``. ``traceback`` is what its end has printed.
    """

    def __init__(self, how: str, reason: str = "crashed", traceback: str = "") -> None:
        super().__init__(how)
        self.reason = reason
        self.traceback = traceback


class ProcessProvesNothing(ProcessDied):
    """The process is gone, and something else may be to blame, as a thread that an earlier task has left there."""


class Process(Protocol):
    """A process of the operating system that leads a session of its own."""

    @property
    def pid(self) -> int:
        """Its id, which nobody else has before ``exited`` is done."""

    @property
    def exited(self) -> "asyncio.Future[int | None]":
        """Its exit code, negative for a signal; None when nobody can know it."""


class Child:
    """One such process, and what leads to it."""

    def __init__(self, process: Process, channel: Channel, output: Output) -> None:
        self._process = process
        self._channel = channel
        self.output = output
        self.served = 0  # attempts that have ended in it
        self.has_leftovers = False  # something of theirs may go on in there
        self.resident_bytes = 0  # at the end of the last one

    async def come_up(self, seconds: float) -> None:
        """Return once it can run something; raises ProcessDied, also when that takes longer."""
        try:
            async with asyncio.timeout(seconds):
                message = await self._channel.receive()
        except TimeoutError:
            message = None
        if not isinstance(message, Ready):
            raise await self._death()

    @property
    def is_alive(self) -> bool:
        """Whether it can run something."""
        return not self._process.exited.done()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    async def run(
        self, claim: Claim, worker_id: int, spare_bytes: int | None, on_progress: Callable[[int, int, str], None]
    ) -> Ended:
        """Run an attempt and return how it ended; raises ProcessDied."""
        self._channel.send(Run(claim, worker_id, spare_bytes))
        while True:
            message = await self._channel.receive()
            match message:
                case Progress(task_id, attempt, text):
                    on_progress(task_id, attempt, text)
                case Ended():
                    self.served += 1
                    self.has_leftovers |= message.leftovers
                    self.resident_bytes = message.resident_bytes
                    return message
                case _:
                    raise await self._death()

    def stop(self, *, cancelled: bool) -> None:
        """Ask the attempt to end."""
        self._channel.send(Stop(cancelled))

    def kill(self) -> None:
        """End the process, and what was started in it, at once; may be called from any thread."""
        if self.is_alive:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let an idle process end by itself."""
        self._channel.close()
        self.output.close()

    async def _death(self) -> ProcessDied:
        """Return how the process has ended, which what closed its connection need not have done."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_SECONDS):
                await asyncio.shield(self._process.exited)
        self.kill()
        code = await asyncio.shield(self._process.exited)
        last_words = self.output.last_words()
        self.close()
        if code is None:
            return ProcessProvesNothing("was ended together with the process that forks them")
        if code >= 0:
            return ProcessDied(f"ended with exit code {code}", traceback=last_words)
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            whose = " (by somebody, by itself, or by the kernel for want of memory)" if name == "SIGKILL" else ""
            return ProcessDied(f"was ended by {name}{whose}", traceback=last_words)
        return ProcessDied(f"was ended by signal {-code}", traceback=last_words)
