"""The inside of the process that forks those in which attempts run: clean, with one thread and no event loop.

In: wishes of the worker, over a pair of sockets. Out: children that have the handlers imported already, which takes
them milliseconds and shares the memory; and how each has ended. Where a handler's module has started threads, a child
could inherit what they have locked: then nothing is forked here, and the worker starts each process by itself.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from typing import Final, NoReturn

WISH: Final = struct.Struct(">cI")  # FORK, with two descriptors: a socket, and a pipe to print to; REAP and a process
FORK: Final = b"F"
REAP: Final = b"R"
TOLD: Final = struct.Struct(">cIi")
READY: Final = b"R"
UNFIT: Final = b"U"  # and the number of threads
FORKED: Final = b"F"  # and the process; 0 and an error of the operating system
EXITED: Final = b"X"  # and the process and its code, negative for a signal


def serve(connection: socket.socket, begin: Callable[[], None]) -> tuple[socket.socket, int]:
    """Return in each child, with its socket and its pipe; here it ends with the process, when the worker hangs up.

    ``begin`` is called in a child, first.
    """
    gc.collect()
    gc.freeze()  # what is shared must not be written to
    threads = _threads()
    if threads != 1 or not hasattr(os, "pidfd_open"):
        connection.sendall(TOLD.pack(UNFIT, 0, threads))
        os._exit(0)
    connection.sendall(TOLD.pack(READY, 0, 0))
    return _Server(connection, begin).serve()


def _threads() -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - also those that Python does not know
    return 0


class _Server:
    def __init__(self, connection: socket.socket, begin: Callable[[], None]) -> None:
        self._connection = connection
        self._begin = begin
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._running: dict[int, int] = {}  # processes by the descriptors that tell of their ends

    def serve(self) -> tuple[socket.socket, int]:
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._running:
                    self._tell_end(descriptor)
                    continue
                data, descriptors, _, _ = socket.recv_fds(self._connection, WISH.size, 2)
                if len(data) != WISH.size:
                    self._leave()
                wish, process = WISH.unpack(data)
                if wish == REAP:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(process, 0)
                elif (theirs := self._fork(*descriptors)) is not None:
                    return theirs

    def _fork(self, connection: int, output: int) -> tuple[socket.socket, int] | None:
        """Return the descriptors in the child, and None here."""
        us = os.getpid()
        try:
            process = os.fork()
        except OSError as error:
            os.close(connection)
            os.close(output)
            self._tell(FORKED, 0, error.errno or 0)
            return None
        if process == 0:
            os.setsid()
            self._begin()
            if os.getppid() != us:  # it has ended before we could ask to be told
                os._exit(1)
            self._connection.close()
            for descriptor in self._running:
                os.close(descriptor)
            return socket.socket(fileno=connection), output
        os.close(connection)
        os.close(output)
        descriptor = os.pidfd_open(process)
        self._running[descriptor] = process
        self._poll.register(descriptor, select.POLLIN)
        self._tell(FORKED, process, 0)
        return None

    def _tell_end(self, descriptor: int) -> None:
        """End what a process has left in its session, and say how it ended; it stays a zombie, so that nobody else can
        get its id, until the worker knows."""
        process = self._running.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(OSError):
            os.killpg(process, signal.SIGKILL)
        if ended is not None:
            code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            self._tell(EXITED, process, code)

    def _tell(self, what: bytes, process: int, value: int) -> None:
        try:
            self._connection.sendall(TOLD.pack(what, process, value))
        except OSError:
            self._leave()

    @staticmethod
    def _leave() -> NoReturn:
        os._exit(0)  # and with us all that we have forked
