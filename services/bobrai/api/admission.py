"""Backpressure: whether a queue has room for more tasks, known without asking the database.

In: the figures that the dispatchers measure about once a second, and every admission of this process. Out: QueueFull,
or nothing. Between two measurements the figure grows by what this process accepted, so that a burst is stopped in time.
"""

from collections import deque

from bobrai.domain.errors import QueueFull

_RETRY_AFTER_SECONDS = 5  # a few measurements: asking sooner would meet the same figure
_MARKS_KEPT = 600


class Admission:
    """The room of one queue. Times are seconds of a monotonic clock."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._limit = 0
        self._measured = 0
        self._accepted = 0  # by this process, ever
        self._counted = 0  # of these, how many the measured figure includes
        self._marks: deque[tuple[float, int]] = deque([(float("-inf"), 0)])

    @property
    def backlog(self) -> int:
        """Tasks that wait, as far as this process can know."""
        return self._measured + max(self._accepted - self._counted, 0)

    def admit(self, tasks: int) -> None:
        """Count tasks that are about to be stored; raises QueueFull when they do not fit."""
        if self.backlog + tasks > self._limit:
            raise QueueFull(self._queue, self._limit, _RETRY_AFTER_SECONDS)
        self._accepted += tasks

    def give_back(self, tasks: int) -> None:
        """Uncount tasks that were not stored after all."""
        self._accepted -= tasks

    def measured(self, backlog: int, *, age_seconds: float | None, limit: int, now: float) -> None:
        """Take a measured figure of the given age; None means that the queue was never measured."""
        self._limit = limit
        self._measured = backlog
        # What was accepted after the figure was taken is not in it.
        taken_at = float("-inf") if age_seconds is None else now - age_seconds
        while len(self._marks) > 1 and self._marks[1][0] <= taken_at:
            self._marks.popleft()
        self._counted = self._marks[0][1]
        # While nobody measures, the marks end at some number, and what came after counts as not measured.
        if self._marks[-1][1] != self._accepted and len(self._marks) < _MARKS_KEPT:
            self._marks.append((now, self._accepted))
