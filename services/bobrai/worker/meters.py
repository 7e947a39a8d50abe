"""The metrics of attempts, with their label children looked up once per queue and type."""

from functools import lru_cache

from bobrai.domain.task import OutcomeKind
from bobrai.telemetry import metrics


class Meters:
    """What is counted of attempts of one type in one queue."""

    __slots__ = ("ended", "run_seconds", "started", "task_seconds", "wait_seconds")

    def __init__(self, queue: str, type_: str) -> None:
        self.started = metrics.ATTEMPTS_STARTED.labels(queue, type_)
        self.wait_seconds = metrics.TASK_WAIT_SECONDS.labels(queue, type_)
        self.run_seconds = metrics.ATTEMPT_SECONDS.labels(queue, type_)
        self.task_seconds = metrics.TASK_SECONDS.labels(queue, type_)
        self.ended = {kind: metrics.ATTEMPTS_FINISHED.labels(queue, type_, kind.value) for kind in OutcomeKind}


@lru_cache(maxsize=4096)
def of(queue: str, type_: str) -> Meters:
    """Return the meters of a type in a queue."""
    return Meters(queue, type_)
