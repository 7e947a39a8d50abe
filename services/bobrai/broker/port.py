"""What every broker promises: the vocabulary of the dispatcher and the worker, whichever broker runs underneath.

In: bundles of hints, from the dispatcher. Out: deliveries, to the worker. `rabbitmq.py` and `memory.py` keep these
promises, and `tests/contract/broker_contract.py` holds both to them. Messages may be doubled, late or reordered, and a
broker may lose them with its disk: the rows in PostgreSQL decide what is true.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from bobrai.domain.message import Hint


class OutgoingMessage(NamedTuple):
    """One message: the hints that one worker takes together, and the priority 0 to 10 of the most urgent."""

    hints: list[Hint]
    priority: int = 0


class Delivery(Protocol):
    """One message in the hands of this process until it is acked, or until the subscription or connection ends."""

    @property
    def queue(self) -> str:
        """The queue's name in bobrAI, without any prefix that it has in the broker."""

    @property
    def hints(self) -> list[Hint]:
        """At least one hint."""

    @property
    def priority(self) -> int:
        """0 to 10, as published."""

    @property
    def redelivered(self) -> bool:
        """True when some consumer held this message before; the hints may be stale."""

    def ack(self) -> None:
        """Let the broker forget the message.

        Never blocks and never raises. A second ack is ignored; an ack after the connection was lost is dropped, and
        the message comes again.
        """


OnDelivery = Callable[[Delivery], None]


class Subscription(Protocol):
    """A standing wish to consume one queue; it heals by itself after every outage."""

    @property
    def queue(self) -> str:
        """The queue's name in bobrAI."""

    @property
    def consuming(self) -> bool:
        """Whether the broker has confirmed the consumer, the connection lives, and no watchdog doubts it.

        False while paused or closed.
        """

    def resize(self, prefetch: int) -> None:
        """Allow this many unacked deliveries from now on; 0 lets none arrive. Takes effect in the background.

        Deliveries that are already here stay valid and count: after a decrease no new one arrives until enough are
        acked. Call it before the ack that makes room, so that the broker does not refill the place.
        """

    async def pause(self) -> None:
        """Return when no further delivery can arrive; those here can still be acked. There is no way back."""

    async def close(self) -> None:
        """Send what was acked, give every other delivery back to the queue, and end."""


class Broker(Protocol):
    """One process's way to the broker. Give the dispatcher and the worker one each: a broker that slows publishers
    down does so by connection, and acks must not wait behind that."""

    async def start(self) -> None:
        """Return at once; connect in the background and keep connecting, for ever."""

    async def close(self) -> None:
        """End all subscriptions, then the connection. Idempotent."""

    @property
    def connected(self) -> bool:
        """Whether the connection is up, as far as this side can know."""

    async def wait_connected(self) -> None:
        """Return once connected; the caller sets the deadline."""

    async def publish(self, queue: str, messages: Sequence[OutgoingMessage]) -> list[bool]:
        """Publish all messages at once and wait for every confirm; declares the queue when it does not exist.

        Returns one value per message, in order: True when the broker has it safe, False when the broker refused it
        (the queue is at its maximum length). Raises BrokerUnavailable when the outcome is unknown; then some or all of
        the messages may have arrived.
        """

    async def depth(self, queue: str) -> int:
        """The number of messages that wait in the queue, those held by consumers not counted; 0 for a new queue.

        Declares the queue when it does not exist. Raises BrokerUnavailable.
        """

    async def delete(self, queue: str) -> None:
        """Delete the queue with every message in it; nothing happens when there is none. Raises BrokerUnavailable.

        Whoever still consumes it declares it again, and so does the next publish. A queue that this user may not delete
        is left where it is, and told of.
        """

    def forget(self, queue: str) -> None:
        """Give up what this side keeps open to publish to the queue; the next publish opens it again."""

    def subscribe(self, queue: str, prefetch: int, on_delivery: OnDelivery) -> Subscription:
        """Consume a queue with at most `prefetch` unacked deliveries, now or as soon as the broker can be reached.

        `on_delivery` is called from the event loop, once per message. It must return quickly; when it raises, the
        error is logged and the message stays unacked.
        """
