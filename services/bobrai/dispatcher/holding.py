"""Counts what limits hold back, so that nobody scales workers up for what may not run.

In: what waits in lanes, what is let through, and the limits in force. Out: per queue how much of it could not start
now, had it all the workers of the world. Next: ``measuring.py`` leaves it out of what is due.
"""

from collections.abc import Mapping
from typing import Final

from bobrai.dispatcher import bounds
from bobrai.domain.limits import MAX_CONCURRENCY
from bobrai.store import admissions
from bobrai.store.admissions import Waiting
from bobrai.store.pool import Executor
from bobrai.store.queues import Held

MOST_LANES: Final = 20_000  # of which the figures are right; what waits in more may run, as far as they know
_TIMEOUT_SECONDS: Final = 30.0


async def held(database: Executor) -> Mapping[str, Held]:
    """Return what limits hold back, by queue; raises DatabaseUnavailable."""
    limited = await admissions.limited(database)
    lanes = await admissions.waiting(database, most=MOST_LANES, timeout=_TIMEOUT_SECONDS) if limited.under_way else []
    if not lanes:
        return {}
    budget = await bounds.budget(
        database, (lane.keys for lane in lanes), await admissions.passed(database), limited, most=MAX_CONCURRENCY
    )
    found: dict[str, Held] = {}
    for lane in sorted(lanes, key=lambda lane: lane.oldest_due_at):
        limits = budget.of(lane.keys, limited)
        may_start = max(0, min((lane.tasks, *(left.count for left in limits))))
        for left in limits:
            left.count -= may_start
        found[lane.keys.queue] = _with(found.get(lane.keys.queue), lane, may_start)
    return found


def _with(before: Held | None, lane: Waiting, may_start: int) -> Held:
    tasks, oldest = before or (0, None)
    if may_start and oldest is None:  # they come in the order of their age
        oldest = lane.oldest_due_at
    return Held(tasks + lane.tasks - may_start, oldest)
