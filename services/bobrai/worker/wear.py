"""What an attempt has left in its process for the next one: things that go on, and things that are not as they were.

In: the process as it is before its first attempt. Out: whether something goes on that the next attempt could die of,
and whether something was changed that it could stumble over. What can be undone for certain, a timer's signal, is.
"""

import asyncio
import os
import resource
import signal
import sys
import threading
from typing import Any, Final

from bobrai.runtime import signals
from bobrai.worker.default_executor import DefaultExecutor

_OUR_THREADS: Final = ("handler-", "to-thread")
_LIMITS: Final = tuple(number for name, number in vars(resource).items() if name.startswith("RLIMIT_"))
_SIGNALS: Final = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class Wear:
    """One process; ``executor`` is its pool for ``asyncio.to_thread``."""

    def __init__(self, executor: DefaultExecutor) -> None:
        self._executor = executor
        self._threads: set[threading.Thread] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._state: tuple[Any, ...] = ()

    def begin(self) -> None:
        """Take it as it is: modules and start-up functions of handlers have made it so."""
        self._threads, self._tasks = set(threading.enumerate()), asyncio.all_tasks()
        self._state = _state()

    def has_leftovers(self) -> bool:
        """Return whether threads or asyncio tasks go on."""
        if not asyncio.all_tasks() <= self._tasks or self._executor.is_running:
            return True
        threads = (each.name for each in threading.enumerate() if each not in self._threads)
        return not all(name.startswith(_OUR_THREADS) for name in threads)

    def is_changed(self) -> bool:
        """Return whether the next attempt would find something else than the first one did."""
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        return _state() != self._state


def _state() -> tuple[Any, ...]:
    try:
        folder = os.getcwd()  # noqa: PTH109 - it is done after each attempt
    except OSError:  # it was removed
        folder = ""
    umask = os.umask(0o077)
    os.umask(umask)
    standard = tuple(_file(descriptor) for descriptor in (0, 1, 2))
    streams = tuple((id(stream), getattr(stream, "closed", True)) for stream in (sys.stdin, sys.stdout, sys.stderr))
    # Of its own memory each attempt sets the limit anew.
    limits = tuple(resource.getrlimit(limit) for limit in _LIMITS if limit != resource.RLIMIT_DATA)
    handlers = tuple(signal.getsignal(number) for number in _SIGNALS)
    masked = frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    return folder, umask, dict(os.environ), standard, streams, limits, handlers, masked, signals.was_received()


def _file(descriptor: int) -> tuple[int, int]:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino
