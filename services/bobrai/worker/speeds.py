"""How many tasks of each queue this worker can finish in a second: arithmetic over what it has seen.

In: run times of attempts, and whether more work was waiting. Out: tasks per second, which the dispatcher sizes bundles
by, and which say how much may be claimed ahead.
"""

from collections.abc import Mapping

_FIRST_GUESS = 2_000.0  # tasks per second, while the worker has not been busy enough to show its limit
_WEIGHT = 0.3  # of the newest round in each mean
_CHANGE = 1.5  # factor by which a speed must differ before it is worth a write
CLAIM_AHEAD_SECONDS = 0.02


class Speeds:
    """Measures rounds of a fraction of a second."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._round: dict[str, list[float]] = {}  # queue -> [attempts, their seconds]
        self._mean: dict[str, float] = {}
        self._limit: dict[str, float] = {}
        self._current: dict[str, float] = {}
        self._reported: dict[str, float] = {}

    def add(self, queue: str, seconds: float) -> None:
        """Note the run time of one attempt."""
        entry = self._round.get(queue)
        if entry is None:
            entry = self._round[queue] = [0, 0.0]
        entry[0] += 1
        entry[1] += seconds

    def end_round(self, elapsed: float, *, saturated: bool) -> None:
        """Fold a round into the means; ``saturated`` when hints were waiting all through it."""
        finished, self._round = self._round, {}
        all_seconds = sum(seconds for _, seconds in finished.values()) or 1e-9
        for queue, (count, seconds) in finished.items():
            mean = max(seconds / count, 1e-6)
            self._mean[queue] = _blend(self._mean.get(queue, mean), mean)
            # What this queue would do if it had the whole worker for itself.
            rate = count / elapsed / max(seconds / all_seconds, 1e-6)
            limit = self._limit.get(queue, _FIRST_GUESS)
            if saturated:
                self._limit[queue] = _blend(limit, rate)
            elif rate > limit and len(finished) == 1:
                self._limit[queue] = rate
            self._current[queue] = min(self._slots / self._mean[queue], self._limit.get(queue, _FIRST_GUESS))

    def changed(self) -> Mapping[str, float] | None:
        """Return all speeds when one differs enough from what was reported, else None."""
        for queue, speed in self._current.items():
            before = self._reported.get(queue)
            if before is None or not before / _CHANGE < speed < before * _CHANGE:
                return {name: round(value, 3) for name, value in self._current.items()}
        return None

    def reported(self, speeds: Mapping[str, float]) -> None:
        """Note what was written."""
        self._reported = dict(speeds)

    def forget_reports(self) -> None:
        """Report everything again: a new row knows nothing."""
        self._reported = {}

    @property
    def claim_ahead(self) -> int:
        """How many claims may wait for a slot: 20 ms of work of the slowest queue."""
        return int(min(self._current.values(), default=0.0) * CLAIM_AHEAD_SECONDS)


def _blend(before: float, now: float) -> float:
    return before + _WEIGHT * (now - before)
