"""The event loop's default executor, which ``asyncio.to_thread`` and ``run_in_executor(None, …)`` use in handlers.

In: calls of handlers. Out: as many threads as there are slots, and one more for each call that does not end. Such a
call gives its place to another, so that hung ones never keep later ones from starting.
"""

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from bobrai.runtime import forks
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)

LONG_SECONDS: Final = 5.0  # a call that takes longer counts as one that does not end
_LEAST_THREADS: Final = 32  # as many as Python's own executor has at most
MOST_THREADS: Final = 2_000
T = TypeVar("T")


class DefaultExecutor(ThreadPoolExecutor):
    """A pool that grows by one thread for each call that runs for long, and shrinks to its size as they end."""

    def __init__(self, slots: int) -> None:
        self._size = max(slots, _LEAST_THREADS)
        super().__init__(self._size, thread_name_prefix="to-thread")
        self._running: dict[int, float] = {}  # since when, by thread
        self._told = False
        metrics.EXECUTOR_CALLS_LONG.set_function(lambda: self.long)

    @property
    def long(self) -> int:
        """Calls that have been running for long."""
        before = time.monotonic() - LONG_SECONDS
        return sum(since < before for since in tuple(self._running.values()))

    @property
    def is_running(self) -> bool:
        """Whether a call is under way."""
        return bool(self._running)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call a function in a thread, in the caller's context: its lines say whose they are."""
        return super().submit(contextvars.copy_context().run, self._call, fn, args, kwargs)

    def _call(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        thread = threading.get_ident()
        self._running[thread] = time.monotonic()
        try:
            value = fn(*args, **kwargs)
        except BaseException as error:
            forks.end_if_child(error)
            raise
        finally:
            del self._running[thread]
        forks.end_if_child(None)
        return value

    def tend(self) -> None:
        """Make room for what waits behind calls that do not end; call it a few times per second."""
        long = self.long
        self._max_workers = min(self._size + long, MOST_THREADS)
        for _ in range(min(self._work_queue.qsize(), self._max_workers - len(self._threads))):
            self._adjust_thread_count()
        if long >= self._size and not self._told:
            log.warning("executor.crowded", calls=long, threads=threading.active_count())
        self._told = long >= self._size
