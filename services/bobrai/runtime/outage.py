"""How a part of a process lives through an outage: says it once, waits longer each time, says once that it is over.

In: errors and successes of one duty. Out: two lines of the log, and how long to wait before the next try.
"""

import random

from bobrai.domain.errors import Unavailable
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_SHORTEST_SECONDS = 0.1
_LONGEST_SECONDS = 2.0


def pause_after(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row: 0.1 s doubling to 2 s, with jitter."""
    nominal: float = min(_LONGEST_SECONDS, _SHORTEST_SECONDS * 2.0 ** min(failures - 1, 10))
    return nominal * random.uniform(0.5, 1.0)


class Outage:
    """The state of the database as one part of the process sees it."""

    def __init__(self, part: str) -> None:
        self._part = part
        self._failures = 0

    @property
    def is_on(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    def failed(self, error: Exception) -> float:
        """Note a failure and return the seconds to wait before the next try."""
        if not self._failures:
            # A dependency that is away needs no traceback; anything else is a defect and does.
            expected = isinstance(error, Unavailable)
            log.warning("database.away", part=self._part, error=str(error), exc_info=None if expected else error)
        self._failures += 1
        return pause_after(self._failures)

    def over(self) -> None:
        """Note a success."""
        if self._failures:
            log.info("database.back", part=self._part, failures=self._failures)
            self._failures = 0
