"""How a part of the worker lives through an outage: says it once, waits longer each time, says once that it is over."""

import random

from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_SHORTEST_SECONDS = 0.1
_LONGEST_SECONDS = 2.0


class Outage:
    """The state of the database as one part of the worker sees it."""

    def __init__(self, part: str) -> None:
        self._part = part
        self._failures = 0

    @property
    def is_on(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    def failed(self, error: Exception) -> float:
        """Note a failure and return the seconds to wait before the next try; 0.1 s doubling to 2 s, with jitter."""
        if not self._failures:
            log.warning("database.away", part=self._part, error=str(error))
        self._failures += 1
        nominal: float = min(_LONGEST_SECONDS, _SHORTEST_SECONDS * 2.0 ** min(self._failures - 1, 10))
        return nominal * random.uniform(0.5, 1.0)

    def over(self) -> None:
        """Note a success."""
        if self._failures:
            log.info("database.back", part=self._part, failures=self._failures)
            self._failures = 0
