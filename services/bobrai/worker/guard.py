"""Ends isolated tasks that take more memory than their share, before the kernel ends the whole container.

In: processes and the bytes that each may take, with all that it has started. Out: SIGKILL, and a call that says why. It
is a thread, because a handler may block the event loop, and looks often, because memory goes fast.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from bobrai.worker import memory

_PERIOD_SECONDS: Final = 0.02  # in which a process takes some 40 MB
_CLOSE_PERIOD_SECONDS: Final = 0.004  # for one that has taken half of its share and takes more
_GROWING_BYTES: Final = 1024 * 1024


class MemoryGuard:
    """Watches processes while there are any."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._some = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-guard", daemon=True)

    def watch(self, leader: int, limit_bytes: int, end: Callable[[int], None]) -> None:
        """Call ``end`` in the guard's thread with the bytes that a session has taken, once it is beyond its limit."""
        self._watched[leader] = (limit_bytes, end)
        self._some.set()
        if not self._thread.is_alive():
            self._thread.start()

    def forget(self, leader: int) -> None:
        """Watch it no more."""
        self._watched.pop(leader, None)

    def _watch(self) -> None:
        before: dict[int, int] = {}
        while True:
            if not self._watched:
                self._some.clear()
            self._some.wait()
            taken = memory.session_bytes()
            pause = _PERIOD_SECONDS
            for leader, (limit_bytes, end) in list(self._watched.items()):
                now = taken.get(leader, 0)
                if now > limit_bytes:
                    self.forget(leader)
                    end(now)
                elif now > limit_bytes / 2 and now > before.get(leader, 0) + _GROWING_BYTES:
                    pause = _CLOSE_PERIOD_SECONDS
            before = taken
            time.sleep(pause)
