"""The counters of one queue, all there from the moment the dispatcher knows the queue.

A counter that first appears with the value 1 hides its first increase from Prometheus, and the rarest events are those
that somebody wants to be told of.
"""

from typing import Final

from bobrai.telemetry import metrics


class Meters:
    """What is counted of one queue."""

    __slots__ = (
        "admitted", "bundle", "confirmed", "held_seconds", "lag", "publish", "refused", "refused_hints",
        "relayed", "swept", "unknown",
    )  # fmt: skip

    def __init__(self, queue: str) -> None:
        self.relayed = metrics.HINTS_RELAYED.labels(queue)
        self.admitted = metrics.HINTS_ADMITTED.labels(queue)
        self.held_seconds = metrics.HELD_SECONDS.labels(queue)
        self.refused_hints = metrics.HINTS_REFUSED.labels(queue)
        self.confirmed = metrics.MESSAGES_PUBLISHED.labels(queue, "confirmed")
        self.refused = metrics.MESSAGES_PUBLISHED.labels(queue, "refused")
        self.unknown = metrics.MESSAGES_PUBLISHED.labels(queue, "unknown")
        self.bundle = metrics.MESSAGE_HINTS.labels(queue)
        self.lag = metrics.RELAY_SECONDS.labels(queue)
        self.publish = metrics.PUBLISH_SECONDS.labels(queue)
        self.swept = metrics.TASKS_SWEPT.labels(queue)
        for status in ("pending", "failed", "cancelled"):
            metrics.TASKS_TAKEN_BACK.labels(queue, status)


_known: Final[dict[str, Meters]] = {}


def of(queue: str) -> Meters:
    """Return the counters of a queue."""
    found = _known.get(queue)
    if found is None:
        found = _known[queue] = Meters(queue)
    return found


def forget(queue: str) -> None:
    """Show nothing more of a queue that is gone."""
    _known.pop(queue, None)
    metrics.forget_queue(queue)
