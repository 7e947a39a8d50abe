"""Whose turn it is among lanes in which more waits than may start. Pure arithmetic.

In: lanes, what waits in each, and what its limits leave. Out: how many hints each may send. Lanes take turns by what
they were given so far (start-time fair queueing, Goyal, Vin and Cheng 1996), weights counted: one with little to do
comes to its end soon, however much waits elsewhere. One that was away has some turns to its credit, but not all turns:
one in a few goes to who had none for the longest time. Next: ``admission.py`` lets the hints through.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from typing import Final

CREDIT: Final = 200.0  # turns at most that a lane is ahead of the others after it was away
LONGEST_WAIT_EVERY: Final = 4  # turns, of which one goes to the lane that had its last one longest ago
LANES_KEPT: Final = 20_000


class Left:
    """How many hints a limit leaves: shared by all lanes that it counts."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count


@dataclass(slots=True)
class Candidate:
    """A lane that wants turns; ``given`` is what it gets."""

    lane: Hashable
    waiting: int
    weight: float
    limits: Sequence[Left]
    given: int = 0

    @property
    def is_open(self) -> bool:
        """Whether another hint of it may start."""
        return self.given < self.waiting and all(left.count > 0 for left in self.limits)


class Turns:
    """What each lane was given so far."""

    def __init__(self) -> None:
        self._served: dict[Hashable, float] = {}  # turns, each divided by the lane's weight
        self._last: dict[Hashable, int] = {}
        self._level = 0.0  # where the lanes that take turns are now
        self._turn = 0

    def deal(self, candidates: Sequence[Candidate]) -> None:
        """Give turns until nobody can take one; the limits' counts go down by what is given."""
        orders = (self._start, self._longest_ago)
        heaps = [[(order(each.lane), index) for index, each in enumerate(candidates)] for order in orders]
        for heap in heaps:
            heapify(heap)
        while all(heaps):
            which = 0 if (self._turn + 1) % LONGEST_WAIT_EVERY else 1
            place, index = heaps[which][0]
            each = candidates[index]
            if not each.is_open:
                heappop(heaps[which])
            elif place != (now := orders[which](each.lane)):  # it had a turn since it was put here
                heapreplace(heaps[which], (now, index))
            else:
                self._give(each)
        self._forget()

    def _start(self, lane: Hashable) -> float:
        return max(self._served.get(lane, 0.0), self._level - CREDIT)

    def _longest_ago(self, lane: Hashable) -> float:
        return self._last.get(lane, 0)

    def _give(self, each: Candidate) -> None:
        self._turn += 1
        start = self._start(each.lane)
        each.given += 1
        for left in each.limits:
            left.count -= 1
        self._served[each.lane] = start + 1 / each.weight
        self._last[each.lane] = self._turn
        self._level = max(self._level, start)

    def _forget(self) -> None:
        """Keep no more lanes than are worth it: one that has all its credit again is as good as a new one."""
        if len(self._served) > LANES_KEPT:
            self._served = {lane: served for lane, served in self._served.items() if served > self._level - CREDIT}
            self._last = {lane: turn for lane, turn in self._last.items() if lane in self._served}
