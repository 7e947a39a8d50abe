"""What one round of a measurement gives, and the median of several: plain values on their way to `report.py`."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Round:
    """Some tasks within some seconds, and what they cost."""

    tasks: int
    seconds: float
    cpu_seconds: dict[str, float]
    """Per process tree; the client's is apart, in `client_cpu_seconds`."""
    client_cpu_seconds: float = 0.0
    request_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return self.tasks / self.seconds

    def cpu_microseconds(self) -> dict[str, float]:
        """CPU time per task of each process tree."""
        return {name: seconds / self.tasks * 1e6 for name, seconds in self.cpu_seconds.items()}


@dataclass(frozen=True)
class Rounds:
    """Repeats of the same round: the medians are the figures, each one is kept."""

    rounds: Sequence[Round]

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return statistics.median(each.rate for each in self.rounds)

    def cpu_microseconds(self) -> dict[str, float]:
        """CPU time per task of each process tree."""
        names = self.rounds[0].cpu_seconds
        return {name: statistics.median(each.cpu_microseconds()[name] for each in self.rounds) for name in names}

    def total_cpu_microseconds(self) -> float:
        """CPU time per task of all process trees."""
        return statistics.median(sum(each.cpu_microseconds().values()) for each in self.rounds)

    def client_cpu_microseconds(self) -> float:
        """CPU time per task of the load generator, which is not part of the total."""
        return statistics.median(each.client_cpu_seconds / each.tasks * 1e6 for each in self.rounds)

    def against(self, others: "Rounds", figure: Callable[[Round], float] = lambda each: each.rate) -> float:
        """A figure as a multiple of the others', where rounds took turns: neighbours had the same minute."""
        pairs = zip(self.rounds, others.rounds, strict=True)
        return statistics.median(figure(mine) / figure(other) for mine, other in pairs)

    def as_json(self) -> dict[str, Any]:
        """Medians and all rounds."""
        return {
            "per_second": self.rate,
            "cpu_us_per_task": self.cpu_microseconds(),
            "cpu_us_per_task_total": self.total_cpu_microseconds(),
            "client_cpu_us_per_task": self.client_cpu_microseconds(),
            "rounds": [asdict(each) for each in self.rounds],
        }


def percentiles(latencies: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    ordered = sorted(latencies)
    return {f"p{part}": ordered[min(len(ordered) * part // 100, len(ordered) - 1)] * 1e3 for part in (50, 95, 99)}
