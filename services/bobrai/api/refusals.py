"""Counts the submissions that are refused, by reason.

In: whatever the way of a submission raises. Out: the same, counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from bobrai.api.problems import Problem
from bobrai.domain.errors import IdempotencyMismatch, QueueFull, TooManyWaiting, Unavailable
from bobrai.telemetry import metrics

_INVALID = metrics.SUBMISSIONS_REFUSED.labels("invalid")
_QUEUE_FULL = metrics.SUBMISSIONS_REFUSED.labels("queue_full")
_PRINCIPAL_FULL = metrics.SUBMISSIONS_REFUSED.labels("principal_full")
_MISMATCH = metrics.SUBMISSIONS_REFUSED.labels("idempotency_mismatch")
_UNAVAILABLE = metrics.SUBMISSIONS_REFUSED.labels("unavailable")


@contextmanager
def counted() -> Iterator[None]:
    """Count what is raised, when it is a refusal."""
    try:
        yield
    except Problem:
        _INVALID.inc()
        raise
    except QueueFull:
        _QUEUE_FULL.inc()
        raise
    except TooManyWaiting:
        _PRINCIPAL_FULL.inc()
        raise
    except IdempotencyMismatch:
        _MISMATCH.inc()
        raise
    except Unavailable:
        _UNAVAILABLE.inc()
        raise
