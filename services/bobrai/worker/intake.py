"""The deliveries of one queue: which hints wait for a claim, which messages can be acked, how many may be here.

In: deliveries, from the broker. Out: hints, for ``claims``, and acks once all hints of a delivery are settled. Acks
carry no truth; the prefetch keeps this worker from hoarding what another could run.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Protocol

from bobrai.broker.port import Broker, Delivery, Subscription
from bobrai.domain.message import Hint
from bobrai.runtime.checkpoint import checkpoint
from bobrai.telemetry import metrics

EARLY_ACK_SECONDS = 60.0  # far below any broker's consumer timeout
GIVE_BACK_SECONDS = 1.0  # hints that wait here for longer than this are given to whoever is free
GROW_PAUSE_SECONDS = 1.0  # a larger prefetch costs the broker a consumer, so it is wished for rarely
LEAST_BUNDLES = 3  # messages at a time when each brings many tasks


class Load(Protocol):
    """What the intake must know of the executor."""

    @property
    def slots(self) -> int:
        """Tasks that may run at once."""

    @property
    def free(self) -> int:
        """Slots that nothing uses now."""


class Held:
    """One delivery until each of its hints is settled."""

    __slots__ = ("arrived", "delivery", "early", "intake", "unsettled")

    def __init__(self, intake: "Intake", delivery: Delivery) -> None:
        self.intake = intake
        self.delivery = delivery
        self.unsettled = len(delivery.hints)
        self.arrived = time.monotonic()
        self.early = 0  # hints that were unsettled when it was acked early

    def settle(self) -> None:
        """One hint's outcome is written, or it was stale, or it was given back."""
        self.unsettled -= 1
        if self.early:
            self.intake.early -= 1
        elif self.unsettled == 0:
            self.intake.settled(self)


class Intake:
    """One queue's subscription and what it brought."""

    def __init__(self, broker: Broker, queue: str, load: Load, on_arrival: Callable[[], None]) -> None:
        self.queue = queue
        self._early_elsewhere = 0
        self.early = 0  # tasks still running whose delivery was acked early
        self._load = load
        self._on_arrival = on_arrival
        self._waiting: dict[Hint, Held] = {}  # in the order of arrival
        self._claiming: dict[Hint, Held] = {}
        self._held: dict[Held, None] = {}
        self._mean_hints = 1.0
        self._changed_at = 0.0
        self._aim = self._prefetch = load.slots
        self._crowd_limit = load.slots  # lower while other queues have the slots and hints had to be given back
        self._released = metrics.HINTS_RELEASED.labels(queue)
        self._stale = metrics.HINTS_STALE.labels(queue)
        self.subscription: Subscription = broker.subscribe(queue, self._prefetch, self._on_delivery)

    @property
    def waiting(self) -> int:
        """Hints that nobody has claimed yet."""
        return len(self._waiting)

    def take(self, limit: int) -> list[Hint]:
        """Return the longest waiting hints for a claim; each must come back to one of the methods below."""
        taken = list(islice(self._waiting.items(), limit))
        for hint, held in taken:
            del self._waiting[hint]
            self._claiming[hint] = held
        return [hint for hint, _ in taken]

    def is_claiming(self, hint: Hint) -> bool:
        """Whether a claim of this hint is under way."""
        return hint in self._claiming

    def claimed(self, hint: Hint) -> Held:
        """Take out a hint whose task is now ours; settle it when its outcome is written."""
        return self._claiming.pop(hint)

    def stale(self, hint: Hint) -> None:
        """Settle a hint that named an attempt which was not waiting any more."""
        self._stale.inc()
        self._claiming.pop(hint).settle()

    def put_back(self, hints: Iterable[Hint]) -> None:
        """Let hints wait again: their claim has failed."""
        for hint in hints:
            self._waiting[hint] = self._claiming.pop(hint)

    def take_old(self, unsure: set[Hint], *, now: float | None = None) -> list[Hint]:
        """Take out hints that have waited too long, or all of them without ``now``; those of lost claims stay.

        Each must come back to ``released`` or ``put_back``.
        """
        old = []
        for hint, held in self._waiting.items():
            if now is not None and now - held.arrived < GIVE_BACK_SECONDS:
                break
            if hint not in unsure:
                old.append(hint)
        for hint in old:
            self._claiming[hint] = self._waiting.pop(hint)
        return old

    def released(self, hints: Sequence[Hint]) -> None:
        """Settle hints that were given back: the outbox holds their tasks again."""
        self._released.inc(len(hints))
        # Fewer places first, or the ack would bring the same hints back at once.
        given_back = {self._claiming[hint] for hint in hints}
        self._crowd_limit = min(self._load.slots, len(self._held.keys() - given_back) + 1)
        self._resize()
        for hint in hints:
            self._claiming.pop(hint).settle()

    def settled(self, held: Held) -> None:
        """Ack a delivery whose hints are all settled."""
        self._held.pop(held, None)
        held.delivery.ack()
        checkpoint("worker.acked")

    def tend(self, now: float, early_elsewhere: int) -> None:
        """Ack what has been running for a minute, and bring the prefetch in line with what runs.

        ``early_elsewhere`` counts tasks of other queues that run without a delivery.
        """
        unclaimed = {*self._waiting.values(), *self._claiming.values()}
        old = [held for held in self._held if now - held.arrived > EARLY_ACK_SECONDS and held not in unclaimed]
        for held in old:
            held.early = held.unsettled
            self.early += held.unsettled
            del self._held[held]
        if not self._waiting and self._load.free > 0:
            self._crowd_limit = self._load.slots
        self._early_elsewhere = early_elsewhere
        starving = not self._waiting and self._load.free > 0 and 0 < self._prefetch <= len(self._held)
        if starving:  # bundles are over, and what is left of them holds every place
            self._mean_hints = min(self._mean_hints, self._load.slots / (2 * self._prefetch))
        self._resize(may_grow=starving or now - self._changed_at > GROW_PAUSE_SECONDS)
        for held in old:
            held.delivery.ack()

    def _resize(self, *, may_grow: bool = False) -> None:
        """Allow as many messages as bring about as many hints as there are slots; a few when each brings many."""
        slots = self._load.slots
        aim = slots if self._mean_hints < 2 else max(LEAST_BUNDLES, round(slots / self._mean_hints))
        # The size of bundles varies with the backlog; only a real change is worth a new consumer.
        if not 0.7 * self._aim <= aim <= 1.3 * self._aim:
            self._aim = aim
        wanted = max(0, min(self._aim, self._crowd_limit, slots - self.early - self._early_elsewhere))
        if wanted < self._prefetch or (may_grow and wanted > self._prefetch):
            self._prefetch = wanted
            self._changed_at = time.monotonic()
            self.subscription.resize(wanted)

    def _on_delivery(self, delivery: Delivery) -> None:
        held = Held(self, delivery)
        self._held[held] = None
        waiting, claiming = self._waiting, self._claiming
        for hint in delivery.hints:
            # The same hint again: after a lost connection only the newer delivery can still be acked.
            if hint in waiting:
                waiting[hint].settle()
                waiting[hint] = held
            elif hint in claiming:
                claiming[hint].settle()
                claiming[hint] = held
            else:
                waiting[hint] = held
        count = held.unsettled
        self._mean_hints += 0.2 * (count - self._mean_hints)
        if count > 1 and len(waiting) > 2 * self._load.slots:
            self._resize()
        self._on_arrival()
