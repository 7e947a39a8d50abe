"""The metrics of attempts, with their label children looked up once per queue and type."""

from functools import lru_cache

from bobrai.domain.task import FINAL, Outcome, OutcomeKind, TaskStatus
from bobrai.telemetry import metrics


class Meters:
    """What is counted of attempts of one type in one queue."""

    __slots__ = ("_labels", "ended", "finished", "run_seconds", "started", "task_seconds", "wait_seconds")

    def __init__(self, queue: str, type_: str) -> None:
        self._labels = queue, type_
        self.started = metrics.ATTEMPTS_STARTED.labels(queue, type_)
        self.wait_seconds = metrics.TASK_WAIT_SECONDS.labels(queue, type_)
        self.run_seconds = metrics.ATTEMPT_SECONDS.labels(queue, type_)
        self.task_seconds = metrics.TASK_SECONDS.labels(queue, type_)
        self.ended = {kind: metrics.ATTEMPTS_FINISHED.labels(queue, type_, kind.value) for kind in OutcomeKind}
        self.finished = {status: metrics.TASKS_FINISHED.labels(queue, type_, status.value) for status in FINAL}

    def written(self, outcome: Outcome, status: str, age_seconds: float, trace_id: str) -> None:
        """Count an outcome that is committed, and the status that it gave to a task of that age."""
        self.ended[outcome.kind].inc()
        if status == TaskStatus.DONE:
            self.finished[TaskStatus.DONE].inc()
            self.task_seconds.observe(age_seconds, trace_id)
        elif status != TaskStatus.PENDING:
            self.finished[TaskStatus(status)].inc()
        elif outcome.kind is OutcomeKind.RETRY and outcome.error is not None:
            metrics.TASKS_RETRIED.labels(*self._labels, outcome.error.reason).inc()


@lru_cache(maxsize=4096)
def of(queue: str, type_: str) -> Meters:
    """Return the meters of a type in a queue."""
    return Meters(queue, type_)
