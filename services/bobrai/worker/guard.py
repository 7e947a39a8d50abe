"""Ends attempts that take more memory than they may, before the kernel ends the whole container.

In: processes and the bytes that each may take, with all that it has started; the container. Out: SIGKILL, and a call
that says why. It is a thread, because a handler may block the event loop, and looks often, because memory goes fast.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bobrai.worker import memory
from bobrai.worker.memory import Container

_PERIOD_SECONDS: Final = 0.02  # in which a process takes some 40 MB
_CLOSE_PERIOD_SECONDS: Final = 0.004  # while something that has taken half of what it may takes more
_GROWING_BYTES: Final = 1024 * 1024
_BLAMED: Final = 0.05  # of the container: what grew by less is not why that is short

End = Callable[[int, int | None], None]


@dataclass(slots=True)
class _Watched:
    limit_bytes: int | None
    end: End
    yields: bool
    begun_bytes: int
    last_bytes: int = 0

    @property
    def grown(self) -> int:
        return self.last_bytes - self.begun_bytes


class MemoryGuard:
    """Watches processes while there are any."""

    def __init__(self, container: Container | None) -> None:
        self._container = container
        self._watched: dict[int, _Watched] = {}
        self._some = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-guard", daemon=True)

    def watch(self, leader: int, limit_bytes: int | None, end: End, *, yields: bool = False) -> None:
        """Call ``end`` in the guard's thread with the bytes that a session has taken, once it is beyond its limit.

        ``yields``: also when the container is short of memory and nothing else has grown as much; the second argument
        is what the container uses then, and None otherwise.
        """
        if limit_bytes is None and not (yields and self._container):
            return
        self._watched[leader] = _Watched(limit_bytes, end, yields, memory.resident_bytes(leader))
        self._some.set()
        if not self._thread.is_alive():
            self._thread.start()

    def forget(self, leader: int) -> None:
        """Watch it no more."""
        self._watched.pop(leader, None)

    def _watch(self) -> None:
        while True:
            if not self._watched:
                self._some.clear()
            self._some.wait()
            time.sleep(_CLOSE_PERIOD_SECONDS if self._look() else _PERIOD_SECONDS)

    def _look(self) -> bool:
        """Look once; returns whether to look again soon."""
        taken = memory.session_bytes()
        soon = False
        for leader, watched in list(self._watched.items()):
            now = taken.get(leader, 0)
            grows, watched.last_bytes = now > watched.last_bytes + _GROWING_BYTES, now
            if watched.limit_bytes is not None and now > watched.limit_bytes:
                self.forget(leader)
                watched.end(now, None)
            elif grows and (watched.limit_bytes is None or now > watched.limit_bytes / 2):
                soon = True
        self._relieve()
        return soon

    def _relieve(self) -> None:
        """End what has grown most when the container is about to be ended as a whole."""
        yielding = [(each.grown, pid) for pid, each in self._watched.items() if each.yields]
        if self._container is None or not yielding:
            return
        used = self._container.used()
        grown, leader = max(yielding)
        if used > self._container.limit * (1 - memory.MARGIN) and grown > self._container.limit * _BLAMED:
            watched = self._watched.pop(leader, None)
            if watched is not None:
                watched.end(watched.last_bytes, used)
