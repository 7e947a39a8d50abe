"""A process of this worker in which tasks run alone, one after another: see `isolated.py` for its inside.

In: settings, then attempts. Out: how each ended, or how the process died; the worker outlives it.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import bobrai
from bobrai.domain.task import Claim
from bobrai.settings import Settings
from bobrai.telemetry import logs
from bobrai.worker.channel import Channel, Ended, Progress, Ready, Run, Stop, send_settings

log = logs.get_logger(__name__)

_START_SECONDS: Final = 120.0  # for the imports of all handlers, on a busy machine
# Where we are found this process knows, and a new one need not: it may have been the current folder.
_PROGRAM: Final = f"import sys; sys.path.append({str(Path(bobrai.__file__).parents[1])!r}); import bobrai.__main__"
_EXIT_SECONDS: Final = 2.0  # between the end of the connection and that of the process


class ProcessDied(Exception):
    """The process is gone before the attempt had ended; the message says how."""


class Child:
    """One such process; ``start`` makes it."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel) -> None:
        self._process = process
        self._channel = channel
        self.has_served = False
        self._exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._wait, args=(self._exited.get_loop(),), name="isolated", daemon=True).start()

    @classmethod
    async def start(cls, settings: Settings, folder: Path | None) -> "Child":
        """Return a process that has imported the handlers; raises ProcessDied when it does not come up.

        ``folder`` is where their modules are looked for; None is the current one.
        """
        with contextlib.ExitStack() as undone:
            try:
                process, ours = _spawn(folder)
                undone.callback(_end_at_once, process)
                undone.callback(ours.close)
                send_settings(ours, settings)
                channel = await Channel.over(ours)
                undone.callback(channel.close)
                child = cls(process, channel)
            except (OSError, RuntimeError) as error:  # no descriptor, process, memory or thread more
                raise ProcessDied(f"could not be started: {error}") from error
            undone.pop_all()
        try:
            await child._come_up()
        except BaseException:  # also a cancel: the worker may not wait for the imports
            child.kill()
            child.close()
            raise
        log.info("isolation.started", pid=process.pid)
        return child

    @property
    def is_alive(self) -> bool:
        """Whether it can run something."""
        return not self._exited.done()

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
                    self.has_served = True
                    return message
                case _:
                    raise ProcessDied(await self._end())

    def stop(self, *, cancelled: bool) -> None:
        """Ask the attempt to end."""
        self._channel.send(Stop(cancelled))

    def kill(self) -> None:
        """End the process, and what was started in it, at once."""
        if self.is_alive:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let an idle process end by itself."""
        self._channel.close()

    async def _come_up(self) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                message = await self._channel.receive()
        except TimeoutError:
            message = None
        if not isinstance(message, Ready):
            raise ProcessDied(await self._end())

    async def _end(self) -> str:
        """Return how the process has ended, which what closed its connection need not have done."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_SECONDS):
                await asyncio.shield(self._exited)
        self.kill()
        code = await asyncio.shield(self._exited)
        self._channel.close()
        if code >= 0:
            return f"ended with exit code {code}"
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            whose = " (by somebody, by itself, or by the kernel for want of memory)" if name == "SIGKILL" else ""
            return f"was ended by {name}{whose}"
        return f"was ended by signal {-code}"

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        # A thread, because a handler may have put something of its own in the place of the event loop's SIGCHLD.
        process = self._process
        with contextlib.suppress(OSError):  # a handler that waits for any child has reaped it
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            # While its id is taken nobody else can have it.
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._exited.set_result, code)


def _spawn(folder: Path | None) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            # Not a fork: it would take along what our threads have locked. A session of its own keeps a terminal's
            # Ctrl-C from it, and lets us end what a handler has started together with it.
            process = subprocess.Popen(  # noqa: S603 - ourselves
                # -P: while ours are imported, modules in the folder must not stand in for Python's own.
                [sys.executable, "-P", "-c", _PROGRAM, "isolated", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True, cwd=folder,
            )  # fmt: skip
    except BaseException:
        ours.close()
        raise
    return process, ours


def _end_at_once(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # it has started nothing yet
    process.wait()
