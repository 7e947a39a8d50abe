"""Clients that submit one task after the other, without keys, while a case breaks something.

In: a release. Out: how many were accepted, what was refused, and the longest that one waited.
"""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from tests.pods.release import Release
from tests.support.eventually import eventually_sync

CLIENTS = 8
PAUSE_SECONDS = 0.01


class Load:
    """Submits from its beginning to its end; a context manager."""

    def __init__(self, release: Release) -> None:
        self.accepted = 0
        self.refused: list[str] = []
        self.longest_seconds = 0.0
        self._release = release
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(CLIENTS)
        self._flows: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._flows = [self._threads.submit(self._flow) for _ in range(CLIENTS)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._threads.shutdown()
        if error is None:
            for flow in self._flows:
                flow.result()

    def wait_accepted(self, more: int) -> None:
        """Wait until so many more tasks were accepted than now."""
        wanted = self.accepted + more
        eventually_sync(lambda: self.accepted >= wanted, 60, message=f"{more} more tasks are accepted")

    def _flow(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            began = time.monotonic()
            try:
                self._release.submit(type="echo", payload="load")
                refusal = ""
            except OSError as error:
                refusal = f"after {time.monotonic() - began:.2f} s: {error}"
            with self._lock:
                self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
                if refusal:
                    self.refused.append(refusal)
                else:
                    self.accepted += 1
