"""Threads for plain functions: one per running attempt, reused, never waited for at exit.

In: a call, from the event loop. Out: a future of its value or its error. A thread that is abandoned goes on until its
function returns; another takes its place at once. They are daemon threads, which is why this is not anyio's pool: its
threads are joined by the interpreter, so that one stuck handler would keep the process from ending.
"""

import asyncio
import contextlib
import contextvars
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from bobrai.runtime import forks

_IDLE_SECONDS = 30.0


class Ended(NamedTuple):
    """What a call gave: its value, or the exception, of whatever kind, that it raised."""

    value: Any
    error: BaseException | None


class _Call(NamedTuple):
    function: Callable[[], Any]
    future: "asyncio.Future[Ended]"
    context: contextvars.Context


class HandlerThreads:
    """Runs calls in threads; as many as are running, so the caller limits them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: deque[_Call | None] = deque()
        # Wakes a thread for each of them, beside them: what is thrown into a thread that waits is raised when it wakes.
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._numbers = itertools.count(1)

    def run(self, function: Callable[[], Any]) -> "asyncio.Future[Ended]":
        """Start a call; cancelling the future abandons it, the function itself goes on."""
        future: asyncio.Future[Ended] = self._loop.create_future()
        with self._lock:
            idle = self._idle > 0
            self._idle -= idle
        if not idle:
            threading.Thread(target=self._serve, name=f"handler-{next(self._numbers)}", daemon=True).start()
        self._put(_Call(function, future, contextvars.copy_context()))
        return future

    def close(self) -> None:
        """Let idle threads end."""
        with self._lock:
            idle, self._idle = self._idle, 0
        for _ in range(idle):
            self._put(None)

    def _put(self, call: _Call | None) -> None:
        self._calls.append(call)
        self._wakeups.put(None)

    def _serve(self) -> None:
        while True:
            # A handler's library may throw a late exception into the thread that the handler ran in.
            with contextlib.suppress(BaseException):
                self._serve_on()
                return

    def _serve_on(self) -> None:
        while (call := self._next()) is not None:
            self._run(call)
            del call  # a payload must not stay in memory while the thread idles
            with self._lock:
                self._idle += 1

    def _next(self) -> _Call | None:
        while True:
            if self._calls:
                with contextlib.suppress(IndexError):  # another thread was faster
                    return self._calls.popleft()
            try:
                self._wakeups.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._idle > 0:
                        self._idle -= 1
                        return None
                # A call was promised to this thread between the time-out and the lock.

    def _run(self, call: _Call) -> None:
        try:
            ended = Ended(call.context.run(call.function), None)
        except BaseException as error:  # noqa: BLE001 - also SystemExit must end the attempt, not the thread
            ended = Ended(None, error)
        forks.end_if_child(ended.error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(_deliver, call.future, ended)


def _deliver(future: "asyncio.Future[Ended]", ended: Ended) -> None:
    if not future.done():
        future.set_result(ended)
