"""The way of one attempt that runs in a process of its own.

In: an attempt with its place. Out: how it ended, or None when no process comes up. The death of a process is its fault
only when nothing else has run in there.
"""

import time
from collections.abc import Callable

from bobrai.telemetry import logs, metrics
from bobrai.worker import outcomes
from bobrai.worker.attempt import Attempt
from bobrai.worker.channel import Ended
from bobrai.worker.child import ProcessDied
from bobrai.worker.isolation import Place, ProcessProvesNothing

log = logs.get_logger(__name__)


async def run(attempt: Attempt, place: Place, start_timer: Callable[[], None]) -> Ended | None:
    """Let a process run the attempt; raises ProcessDied when it was to end."""
    while await place.prepare():
        attempt.started = time.monotonic()
        start_timer()
        try:
            return await place.run(attempt.worker_id, "" if attempt.span is None else attempt.span.context)
        except ProcessDied as error:
            if attempt.cause is not None:
                raise
            if attempt.timer is not None:
                attempt.timer.cancel()
            again = isinstance(error, ProcessProvesNothing)
            log.warning("isolation.died", error=str(error), runs_again=again, **attempt.fields())
            if not again:
                metrics.TASK_LOSSES.labels(attempt.claim.queue, attempt.claim.type, "process_died").inc()
                return Ended(outcomes.died(attempt.claim, str(error)))
    return None
