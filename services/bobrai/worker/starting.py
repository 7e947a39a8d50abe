"""Starts the processes in which attempts run: forked from a clean one (`fork_server.py`), or else each by itself.

In: settings. Out: children that have imported the handlers. The standard library's own pools and Pebble's give a
function one call and its result; attempts talk to their worker while they run (progress, cancels, the log's lines),
have an event loop, and a session that ends as a whole, so these are processes with a socket each.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Final

import bobrai
from bobrai.runtime import forks
from bobrai.settings import Settings
from bobrai.telemetry import logs
from bobrai.worker import fork_server
from bobrai.worker.channel import Channel, send_settings
from bobrai.worker.child import Child, Process, ProcessDied
from bobrai.worker.output import Output

log = logs.get_logger(__name__)

# Where we are found this process knows, and a new one need not: it may have been the current folder.
_PROGRAM: Final = f"import sys; sys.path.append({str(Path(bobrai.__file__).parents[1])!r}); import bobrai.__main__"
_IMPORT_SECONDS: Final = 120.0  # for all handlers, on a busy machine
_folder: Path | None = None  # None: where this process is at the moment


def start_in(folder: Path) -> None:
    """Start processes in this folder, where the handlers' modules are looked for."""
    global _folder
    _folder = folder


class Starter:
    """Starts them; the first one takes as long as the imports of all handlers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: _ForkServer | None = None
        self._lock = asyncio.Lock()
        self._may_fork = sys.platform == "linux"

    async def start(self) -> Child:
        """Return a process that can run something; raises ProcessDied when it does not come up."""
        with contextlib.ExitStack() as undone:
            try:
                ours, theirs = socket.socketpair()
                undone.callback(ours.close)
                with theirs:
                    output = Output()
                    undone.callback(output.close)
                    try:
                        process = await self._process(ours, theirs, output)
                    finally:
                        os.close(output.there)
                channel = await Channel.over(ours)
                child = Child(process, channel, output)
            except (OSError, RuntimeError) as error:  # no descriptor, process, memory or thread more
                raise ProcessDied(f"could not be started: {error}") from error
            undone.pop_all()
        try:
            await child.come_up(_IMPORT_SECONDS + self._settings.worker.startup_seconds)
        except BaseException:  # also a cancel: the worker may not wait for the imports
            child.kill()
            child.close()
            raise
        log.info("isolation.started", pid=child.pid)
        return child

    def close(self) -> None:
        """End the process that forks, and with it all others."""
        if self._server is not None:
            self._server.close()

    async def _process(self, ours: socket.socket, theirs: socket.socket, output: Output) -> Process:
        server = await self._fork_server()
        if server is not None:
            return await server.fork(theirs.fileno(), output.there)
        process = _Spawned("isolated", theirs.fileno(), output.there)
        try:
            send_settings(ours, self._settings)
        except BaseException:
            process.kill()
            raise
        return process

    async def _fork_server(self) -> "_ForkServer | None":
        """Return the server, started if need be; None when it is not fit to fork."""
        async with self._lock:
            if self._may_fork and (self._server is None or not self._server.is_alive):
                server = await _ForkServer.start(self._settings)
                if isinstance(server, int):
                    self._may_fork = False
                    log.info("isolation.spawning", threads=server)
                else:
                    self._server = server
            return self._server if self._may_fork else None


class _Spawned:
    """A process that this one has started."""

    def __init__(self, command: str, *descriptors: int) -> None:
        # Not a fork: it would take along what our threads have locked. A session of its own keeps a terminal's
        # Ctrl-C from it, and lets us end what a handler has started together with it.
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            # -P: while ours are imported, modules in the folder must not stand in for Python's own.
            [sys.executable, "-P", "-c", _PROGRAM, command, *map(str, descriptors)],
            pass_fds=descriptors, stdin=subprocess.DEVNULL, start_new_session=True, cwd=_folder,
        )  # fmt: skip
        self.pid = self._process.pid
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int | None] = loop.create_future()
        try:
            threading.Thread(target=self._wait, args=(loop,), name="isolated", daemon=True).start()
        except RuntimeError:
            self.kill()
            self._process.wait()
            raise

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        # A thread, because a handler may have put something of its own in the place of the event loop's SIGCHLD.
        process = self._process
        with contextlib.suppress(OSError):  # a handler that waits for any child has reaped it
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            # While its id is taken nobody else can have it.
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self.exited.set_result, code)


class _Forked:
    """A process that the server has forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exited: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()


class _ForkServer:
    """The worker's side of the process that forks."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._asked: deque[asyncio.Future[_Forked]] = deque()
        self._forked: dict[int, _Forked] = {}
        self._begun = b""
        self.is_alive = True
        forks.own([connection.fileno()])
        self._loop.add_reader(connection.fileno(), self._on_readable)

    @classmethod
    async def start(cls, settings: Settings) -> "_ForkServer | int":
        """Return the server once it has imported the handlers, or the number of threads that keep it from forking.

        Raises ProcessDied when it does not come up.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = _Spawned("fork-server", theirs.fileno())
            except BaseException:
                ours.close()
                raise
        try:
            send_settings(ours, settings)
            ours.setblocking(False)  # noqa: FBT003 - it takes no keywords
            async with asyncio.timeout(_IMPORT_SECONDS):
                told = await asyncio.get_running_loop().sock_recv(ours, fork_server.TOLD.size)
        except BaseException as error:
            process.kill()
            ours.close()
            if isinstance(error, OSError):  # a time-out as well
                raise ProcessDied("that forks others did not come up") from error
            raise
        if len(told) != fork_server.TOLD.size:
            ours.close()
            code = await process.exited
            raise ProcessDied(f"that forks others ended with exit code {code}")
        what, _, threads = fork_server.TOLD.unpack(told)
        if what == fork_server.UNFIT:
            ours.close()
            return int(threads)
        return cls(ours)

    async def fork(self, *descriptors: int) -> _Forked:
        """Return a child that has these descriptors; raises OSError."""
        asked: asyncio.Future[_Forked] = self._loop.create_future()
        socket.send_fds(self._connection, [fork_server.WISH.pack(fork_server.FORK, 0)], descriptors)
        self._asked.append(asked)
        async with asyncio.timeout(_IMPORT_SECONDS):
            return await asyncio.shield(asked)  # nobody else can take the answer away

    def close(self) -> None:
        """Let it end."""
        if self.is_alive:
            self.is_alive = False
            self._loop.remove_reader(self._connection.fileno())
            self._connection.close()
            for asked in self._asked:
                asked.set_exception(BrokenPipeError("the process that forks others has ended"))
            for forked in self._forked.values():
                forked.exited.set_result(None)
            self._forked.clear()

    def _on_readable(self) -> None:
        size = fork_server.TOLD.size
        try:
            data = self._connection.recv(64 * size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._begun += data
        while len(self._begun) >= size:
            told, self._begun = self._begun[:size], self._begun[size:]
            self._hear(*fork_server.TOLD.unpack(told))

    def _hear(self, what: bytes, pid: int, value: int) -> None:
        if what == fork_server.FORKED:
            asked = self._asked.popleft()
            if pid:
                forked = self._forked[pid] = _Forked(pid)
                asked.set_result(forked)
            else:
                asked.set_exception(OSError(value, os.strerror(value)))
        elif (ended := self._forked.pop(pid, None)) is not None:
            ended.exited.set_result(value)
            with contextlib.suppress(OSError):  # it is about to end as well
                self._connection.send(fork_server.WISH.pack(fork_server.REAP, pid))
