"""Backpressure: whether there is room for more waiting tasks, known without asking the database.

In: figures that somebody measures about once a second, and every admission of this process. Out: QueueFull, or nothing.
Between two measurements the figure grows by what this process accepted, so that a burst is stopped in time.
"""

from collections import deque

from bobrai.domain.errors import QueueFull

_RETRY_AFTER_SECONDS = 5  # a few measurements: asking sooner would meet the same figure
_MARKS_KEPT = 600


class Room:
    """How many more tasks may wait somewhere. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self.limit = 0
        self._measured = 0
        self._accepted = 0  # by this process, ever
        self._counted = 0  # of these, how many the measured figure includes
        self._marks: deque[tuple[float, int]] = deque([(float("-inf"), 0)])

    @property
    def waiting(self) -> int:
        """Tasks that wait, as far as this process can know."""
        return self._measured + max(self._accepted - self._counted, 0)

    def take(self, tasks: int) -> bool:
        """Count tasks that are about to be stored; returns whether they fit."""
        if self.waiting + tasks > self.limit:
            return False
        self._accepted += tasks
        return True

    def give_back(self, tasks: int) -> None:
        """Uncount tasks that were not stored after all."""
        self._accepted -= tasks

    def measured(self, waiting: int, *, taken_at: float) -> None:
        """Take a figure that was measured at a moment."""
        self._measured = waiting
        # What was accepted after the figure was taken is not in it.
        while len(self._marks) > 1 and self._marks[1][0] <= taken_at:
            self._marks.popleft()
        self._counted = self._marks[0][1]

    def mark(self, now: float) -> None:
        """Remember how much was accepted until now, for figures that are taken later."""
        # While nobody measures, the marks end at some number, and what came after counts as not measured.
        if self._marks[-1][1] != self._accepted and len(self._marks) < _MARKS_KEPT:
            self._marks.append((now, self._accepted))


class Admission:
    """The room of one queue."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._room = Room()

    @property
    def backlog(self) -> int:
        """Tasks that wait, as far as this process can know."""
        return self._room.waiting

    def admit(self, tasks: int) -> None:
        """Count tasks that are about to be stored; raises QueueFull when they do not fit."""
        if not self._room.take(tasks):
            raise QueueFull(self._queue, self._room.limit, _RETRY_AFTER_SECONDS)

    def give_back(self, tasks: int) -> None:
        """Uncount tasks that were not stored after all."""
        self._room.give_back(tasks)

    def measured(self, backlog: int, *, age_seconds: float | None, limit: int, now: float) -> None:
        """Take a measured figure of the given age; None means that the queue was never measured."""
        self._room.limit = limit
        self._room.measured(backlog, taken_at=float("-inf") if age_seconds is None else now - age_seconds)
        self._room.mark(now)
