"""A broker inside one process, for `bobrai dev`: the promises of `port.py` without a server.

In: published bundles. Out: deliveries to subscriptions of the same process. It forgets everything when the process
ends, which the rows in PostgreSQL make good. The contract suite holds it to the same tests as RabbitMQ.
"""

import asyncio
import heapq
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from bobrai.broker.port import OnDelivery, OutgoingMessage
from bobrai.domain.errors import BrokerUnavailable
from bobrai.domain.message import Hint
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

MAX_LENGTH = 100_000  # ready messages per queue
TURN = 64  # deliveries before the event loop gets a turn


class _Stored(NamedTuple):
    """A message in its queue, in the order in which it is to leave."""

    rank: int  # the more urgent, the lower
    number: int
    hints: list[Hint]
    redelivered: bool


class MemoryDelivery:
    """A delivery within the process (see `port.Delivery`)."""

    __slots__ = ("_subscription", "hints", "priority", "queue", "redelivered", "stored")

    def __init__(self, subscription: "MemorySubscription", stored: _Stored) -> None:
        self.queue = subscription.queue
        self.hints = stored.hints
        self.priority = -stored.rank
        self.redelivered = stored.redelivered
        self.stored = stored
        self._subscription: MemorySubscription | None = subscription

    def ack(self) -> None:
        """Forget the message (see `port.Delivery`)."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.settle(self)


class _Queue:
    """The ready messages of one queue, and who wants them."""

    def __init__(self) -> None:
        self.ready: list[_Stored] = []
        self.subscriptions: list[MemorySubscription] = []
        self._pumping = False

    def pump_soon(self) -> None:
        """Deliver what can be delivered, in the event loop's next turn."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        for _ in range(TURN):
            taker = next((each for each in self.subscriptions if each.has_room), None)
            if taker is None or not self.ready:
                return
            self.subscriptions.remove(taker)
            self.subscriptions.append(taker)
            taker.take(heapq.heappop(self.ready))
        self.pump_soon()


class MemorySubscription:
    """A subscription within the process (see `port.Subscription`)."""

    def __init__(self, queue: str, store: _Queue, prefetch: int, on_delivery: OnDelivery) -> None:
        self.queue = queue
        self._store = store
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._unacked: dict[int, MemoryDelivery] = {}
        self._paused = False
        store.subscriptions.append(self)
        store.pump_soon()

    @property
    def consuming(self) -> bool:
        """True until paused or closed."""
        return not self._paused

    @property
    def has_room(self) -> bool:
        """Whether another delivery may arrive."""
        return not self._paused and len(self._unacked) < self._prefetch

    def resize(self, prefetch: int) -> None:
        """Allow this many unacked deliveries from now on."""
        self._prefetch = prefetch
        self._store.pump_soon()

    async def pause(self) -> None:
        """Let nothing more arrive; what is here can still be acked."""
        self._paused = True

    async def close(self) -> None:
        """Give every unacked delivery back to the queue, and end."""
        self._paused = True
        if self in self._store.subscriptions:
            self._store.subscriptions.remove(self)
        for delivery in self._unacked.values():
            heapq.heappush(self._store.ready, delivery.stored._replace(redelivered=True))
        self._unacked.clear()
        self._store.pump_soon()

    def take(self, stored: _Stored) -> None:
        """Deliver one message."""
        delivery = MemoryDelivery(self, stored)
        self._unacked[stored.number] = delivery
        try:
            self._on_delivery(delivery)
        except Exception:
            log.exception("broker.on_delivery.failed", queue=self.queue)

    def settle(self, delivery: MemoryDelivery) -> None:
        """Forget one message; nothing happens when it was given back before."""
        if self._unacked.pop(delivery.stored.number, None) is not None and self._store.ready:
            self._store.pump_soon()


class MemoryBroker:
    """A broker within the process (see `port.Broker`)."""

    def __init__(self, *, max_length: int = MAX_LENGTH) -> None:
        self._max_length = max_length
        self._queues: dict[str, _Queue] = {}
        self._numbers = itertools.count(1)
        self._up = asyncio.Event()

    async def start(self) -> None:
        """Be connected."""
        self._up.set()

    async def close(self) -> None:
        """End all subscriptions. Idempotent."""
        self._up.clear()
        for queue in self._queues.values():
            for subscription in list(queue.subscriptions):
                await subscription.close()

    @property
    def connected(self) -> bool:
        """True between `start` and `close`."""
        return self._up.is_set()

    async def wait_connected(self) -> None:
        """Return once started."""
        await self._up.wait()

    async def publish(self, queue: str, messages: Sequence[OutgoingMessage]) -> list[bool]:
        """Store what fits; False for what does not. Raises BrokerUnavailable before `start` and after `close`."""
        store = self._store(queue)
        outcomes = []
        for hints, priority in messages:
            fits = len(store.ready) < self._max_length
            if fits:
                heapq.heappush(store.ready, _Stored(-priority, next(self._numbers), list(hints), redelivered=False))
            outcomes.append(fits)
        store.pump_soon()
        return outcomes

    async def depth(self, queue: str) -> int:
        """The number of messages that wait. Raises BrokerUnavailable before `start` and after `close`."""
        return len(self._store(queue).ready)

    async def delete(self, queue: str) -> None:
        """Forget every message that waits (see `port.Broker`). Raises as `depth`."""
        self._store(queue).ready.clear()
        if not self._queues[queue].subscriptions:
            del self._queues[queue]

    def forget(self, queue: str) -> None:
        """Nothing is kept open (see `port.Broker`)."""

    def subscribe(self, queue: str, prefetch: int, on_delivery: OnDelivery) -> MemorySubscription:
        """Consume a queue (see `port.Broker`)."""
        store = self._queues.setdefault(queue, _Queue())
        return MemorySubscription(queue, store, prefetch, on_delivery)

    def _store(self, queue: str) -> _Queue:
        if not self._up.is_set():
            raise BrokerUnavailable("the in-process broker is not started")
        return self._queues.setdefault(queue, _Queue())
