"""What is said of an attempt that ended: after its outcome is written, so that no line tells what did not come to be.

In: an attempt, and its outcome if it has one. Out: one line, with the run time when a handler ran.
"""

import logging
import time
from typing import Any

from bobrai.domain.task import Outcome, OutcomeKind
from bobrai.telemetry import logs, metrics
from bobrai.worker.attempt import Attempt, Claimed

log = logs.get_logger(__name__)


def ended(attempt: Claimed, outcome: Outcome) -> None:
    """Log how an attempt ended; an exception's message may quote a payload, so it is in the task's row only."""
    if attempt.ran_seconds is None or (outcome.kind is OutcomeKind.DONE and not logs.prints(logging.DEBUG)):
        return
    fields: dict[str, Any] = {**attempt.fields(), "seconds": round(attempt.ran_seconds, 3)}
    if outcome.error is not None:
        fields |= {"error_type": outcome.error.type, "reason": outcome.error.reason}
    match outcome.kind:
        case OutcomeKind.DONE:
            log.debug("task.done", **fields)
        case OutcomeKind.RETRY:
            log.info("task.retried", delay_seconds=round(outcome.delay_seconds, 3), **fields)
        case OutcomeKind.SNOOZE:
            log.info("task.snoozed", delay_seconds=round(outcome.delay_seconds, 3), **fields)
        case OutcomeKind.FAILED:
            log.warning("task.failed", **fields)
        case OutcomeKind.CANCELLED:
            log.info("task.cancelled", **fields)
        case OutcomeKind.INTERRUPTED:
            log.info("task.interrupted", **fields)


def refused(attempt: Claimed, outcome: Outcome, error: Exception) -> None:
    """Log what PostgreSQL did not store of an outcome, because it refused the values; the error may quote a result."""
    if outcome.progress is not None:
        log.warning("task.progress_refused", error=str(error), **attempt.fields())
    elif outcome.kind is OutcomeKind.DONE:
        log.warning("task.result_refused", **attempt.fields())
    else:
        log.error("task.error_refused", error=str(error), **attempt.fields())


def deaf(attempt: Attempt) -> None:
    """Log and count a handler that was told to end, had its time for it, and goes on."""
    is_async = attempt.handler.is_async
    ignored = metrics.HANDLER_CANCELS_IGNORED if is_async else metrics.HANDLER_THREADS_ABANDONED
    ignored.labels(attempt.claim.type).inc()
    log.warning(
        "handler.abandoned",
        cause=attempt.cause and attempt.cause.value,
        runs_in=attempt.handler.runs_in or ("event loop" if is_async else "thread"),
        seconds=round(time.monotonic() - attempt.started, 3),
        **attempt.fields(),
    )
