"""The way of one attempt that runs in a process of its own.

In: an attempt with its place. Out: how it ended, or None when no process comes up. The death of a process, or
its silence, is its fault only when nothing else that has run in there may be to blame.
"""

import asyncio
import time
from typing import Final

from bobrai.domain.task import Outcome
from bobrai.telemetry import logs, metrics
from bobrai.worker import outcomes
from bobrai.worker.attempt import Attempt, StopCause
from bobrai.worker.channel import Ended
from bobrai.worker.child import ProcessDied, ProcessProvesNothing
from bobrai.worker.place import Place

log = logs.get_logger(__name__)

ANSWER_SECONDS: Final = 0.5  # for a process to say that its attempt has ended


async def run(attempt: Attempt, place: Place, grace_seconds: float) -> Ended | None:
    """Let a process run the attempt; raises ProcessDied when it was to end.

    ``grace_seconds`` is what the handler has to end after its timeout. When something else may be to blame for the
    death of its process it starts once more, but no third time: it may be its own doing.
    """
    runs_again = False
    while await place.prepare():
        attempt.started = time.monotonic()
        # The process keeps the timeout by itself; this is for one that cannot.
        late = attempt.claim.timeout_seconds + grace_seconds + ANSWER_SECONDS
        attempt.timer = asyncio.get_running_loop().call_later(late, _kill, attempt, place)
        try:
            return await place.run(attempt.worker_id, "" if attempt.span is None else attempt.span.context)
        except ProcessDied as error:
            if attempt.cause is not None:
                raise
            if attempt.timer is not None:
                attempt.timer.cancel()
            runs_again = not runs_again and isinstance(error, ProcessProvesNothing)
            log.warning("isolation.died", error=str(error), runs_again=runs_again, **attempt.fields())
            if not runs_again:
                return Ended(_died(attempt, place, error))
    return None


def _died(attempt: Attempt, place: Place, error: ProcessDied) -> Outcome:
    claim = attempt.claim
    metrics.TASK_LOSSES.labels(claim.queue, claim.type, "process_died").inc()
    if place.is_declared:
        return outcomes.crashed(claim, str(error), error.reason, error.traceback)
    return outcomes.died(claim, str(error), error.traceback)


def _kill(attempt: Attempt, place: Place) -> None:
    if attempt.cause is None and place.others_ran:
        place.kill_unanswering()
        return
    attempt.cause = attempt.cause or StopCause.TIMEOUT
    place.kill()
