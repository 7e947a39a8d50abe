"""How many requests are under way, and how long each may take.

Kept for all of them by one timer, because a timer each costs more than checking.

In: requests as they begin and end. Out: the cancellation of those that are overdue, at most a quarter second late, and
a 429 problem for a principal that takes more than its share of the process.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bobrai.api import problems
from bobrai.domain.access import Principal, PrincipalKind
from bobrai.telemetry import metrics

_LOOK_SECONDS: Final = 0.25


class Deadline:
    """The end of one request's time; ``passed`` says whether its task was cancelled for it, ``crowded`` for others.

    ``owner``: the id of the principal that it counts for; empty: nobody.
    """

    __slots__ = ("_at", "_task", "crowded", "owner", "passed")

    def __init__(self, task: "asyncio.Task[object] | None", seconds: float) -> None:
        self._task = task
        self._at = time.monotonic() + seconds
        self.passed = False
        self.crowded = False
        self.owner = ""

    def allow(self, seconds: float) -> None:
        """End so many seconds from now instead."""
        self._at = time.monotonic() + seconds

    @property
    def cut(self) -> bool:
        """Whether its task was cancelled, for whichever reason."""
        return self.passed or self.crowded

    def check(self, now: float) -> None:
        """Cancel the task if its time is over."""
        if now >= self._at and self._cancel():
            self.passed = True

    def crowd_out(self) -> None:
        """Cancel the task for the sake of others."""
        if self._cancel():
            self.crowded = True

    def _cancel(self) -> bool:
        if self.cut or self._task is None:
            return False
        self._task.cancel()
        return True


class Deadlines:
    """Every deadline of a process."""

    def __init__(self, most: int, most_per_principal: int) -> None:
        self.most = most
        self._most_per_principal = most_per_principal
        self._of: dict[str, int] = {}  # requests under way, by principal
        self._aside = 0
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None
        metrics.HTTP_REQUESTS_IN_PROGRESS.set_function(lambda: len(self._running))

    @property
    def full(self) -> bool:
        """Whether as many requests are under way as may; those that only wait for a task do not count."""
        return len(self._running) - self._aside >= self.most

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave a request out of the count while it waits."""
        self._aside += 1
        try:
            yield
        finally:
            self._aside -= 1

    def start(self, seconds: float) -> Deadline:
        """Give the current task so many seconds."""
        deadline = Deadline(asyncio.current_task(), seconds)
        self._running.add(deadline)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
        return deadline

    def count(self, deadline: Deadline, principal: Principal) -> None:
        """Count a request for its principal; raises a 429 problem when that has as many under way as may be.

        All who show no credential are one principal, of which nobody could have a share.
        """
        if principal.kind is PrincipalKind.ANONYMOUS:
            return
        under_way = self._of.get(principal.id, 0)
        if under_way >= self._most_per_principal:
            metrics.ACCESS_THROTTLED.labels(principal.kind).inc()
            raise problems.too_many_at_once(self._most_per_principal)
        self._of[principal.id] = under_way + 1
        deadline.owner = principal.id

    def end(self, deadline: Deadline) -> None:
        """Forget a deadline; its request is answered."""
        self._running.discard(deadline)
        if owner := deadline.owner:
            left = self._of[owner] - 1
            if left:
                self._of[owner] = left
            else:
                del self._of[owner]

    def _look(self) -> None:
        now = time.monotonic()
        for deadline in self._running:
            deadline.check(now)
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look) if self._running else None
