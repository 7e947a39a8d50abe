"""Decides which tasks of limited queues and types may start: the only place that does.

In: hints in their lanes, what is let through already, and the limits in force. Out: hints for the relay to publish,
each with its admission committed before, so that whatever ends in between, no limit is ever passed. One dispatcher
decides at a time, and what it counts are rows. Next: the worker claims with the admission.
"""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from bobrai.broker.port import Broker
from bobrai.dispatcher import bounds, meters
from bobrai.dispatcher.bounds import Budget
from bobrai.dispatcher.fleet import Crew, Fleet
from bobrai.dispatcher.turns import Candidate, Left, Turns
from bobrai.domain.errors import BrokerUnavailable
from bobrai.runtime.checkpoint import checkpoint
from bobrai.store import admissions
from bobrai.store.admissions import NOTHING_LIMITED, Lane, Passed
from bobrai.store.outbox import DueHint
from bobrai.store.pool import Database, Executor

REST_SECONDS: Final = 0.01  # between two decisions: each costs the same for one hint as for many
VAIN_REST_SECONDS: Final = 0.03  # the same after one that let nothing through: plain tasks wake the relay all the time
POLL_SECONDS: Final = 0.25  # while something is held back: a worker may have ended something without a word
LOOK_ON_SECONDS: Final = 0.05  # until the next lanes are looked at, where there are more than fit into a round
NOTHING_HELD_SECONDS: Final = 1.0
COUNT_ANEW_SECONDS: Final = 1.0
REPUBLISH_SECONDS: Final = 5.0  # after which what was let through and has not started may be published again
AHEAD_SECONDS: Final = 0.03  # of all workers' work that is let through before they are free
LEAST_AHEAD: Final = 4  # hints, however slow they are
MOST_LANES: Final = 500  # of a queue that are looked at in one round; the next round looks at the next ones
ROOM: Final = 1000  # hints that one round lets through
COUNTED: Final = 500  # waiting hints that are counted over all lanes, so that no turns are given to nobody
SORTED: Final = 2000  # due hints that are put into lanes in one round
DISSOLVED: Final = 5000  # hints that go back to the outbox in one round, because the limits have changed


class Round(NamedTuple):
    """What was let through, and when to decide again."""

    hints: Sequence[DueHint]
    pause_seconds: float


class Admission:
    """What this dispatcher remembers from one decision to the next; all that limits count is in rows."""

    def __init__(self, database: Database, broker: Broker, fleet: Fleet) -> None:
        self._database = database
        self._broker = broker
        self._fleet = fleet
        self._limited = NOTHING_LIMITED  # as of the last decision
        self._turns = Turns()
        self._after: dict[str, bytes] = {}  # the lane of each queue that was looked at last
        self._confirmed: set[int] = set()
        self._unstarted: set[str] = set()  # queues of which something was let through and waits
        self._counted_at = self._decided_at = self._looked_at = self._rests_until = float("-inf")

    def confirmed(self, task_ids: Sequence[int]) -> None:
        """Note what the broker has; it is written down with the next decision."""
        self._confirmed.update(task_ids)

    async def decide(self, queues: Sequence[str]) -> Round:
        """Let through what may start in these queues now; raises DatabaseUnavailable."""
        limited = self._fleet.limited
        if not limited.any:
            return Round([], float("inf"))
        now = time.monotonic()
        if now < self._rests_until:
            return Round([], self._rests_until - now)
        is_due = now - self._decided_at > NOTHING_HELD_SECONDS
        if not is_due and not await admissions.are_awaited(self._database, queues, list(limited.queues)):
            return Round([], NOTHING_HELD_SECONDS)
        empty = await self._empty(queues)
        try:
            async with self._database.repeatable(admissions.BOUNDED) as transaction:
                if not await admissions.lock(transaction):
                    return Round([], REST_SECONDS)
                decided = await self._decided(transaction, queues, empty)
        except BaseException:
            self._limited = NOTHING_LIMITED  # what was counted anew is undone with the rest
            raise
        self._decided_at = time.monotonic()
        in_vain = not decided.hints and decided.pause_seconds > 0
        self._rests_until = self._decided_at + (VAIN_REST_SECONDS if in_vain else REST_SECONDS)
        if decided.hints:
            checkpoint("relay.admitted")
        return decided

    async def _empty(self, queues: Sequence[str]) -> list[str]:
        """Return, now and then, in which queues the broker has nothing ready although something has not started."""
        now = time.monotonic()
        if now - self._looked_at < REPUBLISH_SECONDS:
            return []
        self._looked_at = now
        with suppress(BrokerUnavailable):  # the publish says so
            return [queue for queue in queues if queue in self._unstarted and await self._broker.depth(queue) == 0]
        return []

    async def _decided(self, transaction: Executor, queues: Sequence[str], empty: Sequence[str]) -> Round:
        if self._confirmed:
            await admissions.confirm(transaction, self._confirmed)
            self._confirmed = set()
        before, self._limited = self._limited, await admissions.limited(transaction)
        now = time.monotonic()
        if self._limited[:2] != before[:2] or now - self._counted_at > COUNT_ANEW_SECONDS:
            await admissions.count_anew(transaction)
            self._counted_at = now
        sorted_ = await self._sort(transaction, queues)
        passed = await admissions.settled(transaction)
        self._unstarted = {each.keys.queue for each in passed if each.waiting}
        again = await admissions.unstarted(transaction, queues, empty, older_than_seconds=REPUBLISH_SECONDS, limit=ROOM)
        lanes = await admissions.lanes(
            transaction, {queue: self._after.get(queue, b"") for queue in queues}, most=MOST_LANES, room=COUNTED
        )
        self._look_on(lanes, queues)
        dissolved = await self._dissolve(transaction, [lane for lane in lanes if lane.is_old])
        through = await self._admit(transaction, [lane for lane in lanes if not lane.is_old], passed)
        return Round([*again, *through.hints], 0.0 if dissolved or sorted_ else through.pause_seconds)

    async def _sort(self, transaction: Executor, queues: Sequence[str]) -> bool:
        """Put what is due into lanes; returns whether more may be due.

        Here, since this transaction ends by itself when its process freezes: others take what it had taken.
        """
        limited = [queue for queue in queues if queue in self._limited.queues]
        return bool(limited) and 2 * await admissions.sort_due(transaction, limited, limit=SORTED) >= SORTED

    def _look_on(self, lanes: Sequence[Lane], queues: Sequence[str]) -> None:
        """Have the next round begin where this one ended, and at the first lane after the last one."""
        counts = Counter(lane.keys.queue for lane in lanes)
        last = {lane.keys.queue: lane.id for lane in lanes}
        self._after = {queue: last[queue] for queue in queues if counts[queue] >= MOST_LANES}

    async def _dissolve(self, transaction: Executor, old: Sequence[Lane]) -> bool:
        room = DISSOLVED
        for lane in old:
            if room <= 0:
                break
            room -= await admissions.dissolve(transaction, lane, limit=room)
        return bool(old)

    async def _admit(self, transaction: Executor, lanes: Sequence[Lane], passed: Sequence[Passed]) -> Round:
        if not lanes:
            return Round([], NOTHING_HELD_SECONDS)
        limited = self._limited
        budget = await bounds.budget(transaction, (lane.keys for lane in lanes), passed, limited, most=ROOM)
        candidates = self._candidates(lanes, budget, passed)
        self._turns.deal(candidates)
        wanted = [(lane, each.given) for lane, each in zip(lanes, candidates, strict=True) if each.given]
        admitted = await admissions.admit(transaction, wanted) if wanted else []
        if counted := budget.after((each.keys for each in admitted), limited):
            await admissions.fill(transaction, counted)
        for through in admitted:
            meter = meters.of(through.hint.queue)
            meter.admitted.inc()
            meter.held_seconds.observe(through.waited_seconds)
        # Where everything that was counted went, more may wait; where something had vanished, a place is left.
        more = any(each.given == each.waiting and all(left.count > 0 for left in each.limits) for each in candidates)
        if (admitted and (more or self._after)) or len(admitted) < sum(room for _, room in wanted):
            pause = 0.0
        else:
            pause = min(LOOK_ON_SECONDS if self._after else POLL_SECONDS, budget.next_token_seconds())
        return Round([through.hint for through in admitted], pause)

    def _candidates(self, lanes: Sequence[Lane], budget: Budget, passed: Sequence[Passed]) -> list[Candidate]:
        limited = self._limited
        rooms = _rooms(lanes, passed, self._fleet)
        return [
            Candidate(
                (lane.keys.queue, lane.id),
                lane.waiting,
                bounds.weight_of(lane.keys, limited),
                [rooms[lane.keys.queue], *budget.of(lane.keys, limited)],
            )
            for lane in lanes
        ]


def _rooms(lanes: Sequence[Lane], passed: Sequence[Passed], fleet: Fleet) -> dict[str, Left]:
    """Return how many hints each queue's workers can use now, so that turns are decided as late as can be."""
    admitted: Counter[str] = Counter()
    for each in passed:
        admitted[each.keys.queue] += each.admitted
    queues = {lane.keys.queue for lane in lanes}
    return {queue: Left(min(ROOM, _useful(fleet.crew(queue)) - admitted[queue])) for queue in queues}


def _useful(crew: Crew) -> int:
    return crew.slots + max(LEAST_AHEAD, int(crew.total_per_second * AHEAD_SECONDS))
