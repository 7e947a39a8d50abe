"""What is said of an attempt that ended: after its outcome is written, so that no line tells what did not come to be.

In: an attempt and its outcome. Out: one line, with the run time when a handler ran.
"""

import logging
from typing import Any

from bobrai.domain.task import Outcome, OutcomeKind
from bobrai.telemetry import logs
from bobrai.worker.attempt import Claimed

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
        case OutcomeKind.FAILED:
            log.warning("task.failed", **fields)
        case OutcomeKind.CANCELLED:
            log.info("task.cancelled", **fields)
        case OutcomeKind.INTERRUPTED:
            log.info("task.interrupted", **fields)
