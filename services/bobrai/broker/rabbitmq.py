"""RabbitMQ behind the promises of `port.py`.

In: one or more AMQP URLs. Out: a `Broker`. This file only puts the parts together: `link.py` (connection), `queues.py`
(declaring), `publisher.py`, `subscription.py` and `dead_letters.py`.
"""

import asyncio
from collections.abc import Sequence
from functools import cache

from aiormq import spec

from bobrai.broker.dead_letters import DeadLetters
from bobrai.broker.link import CONNECT_TIMEOUT, Link, MakeContext, parse_urls
from bobrai.broker.port import OnDelivery, OutgoingMessage
from bobrai.broker.publisher import CONFIRM_TIMEOUT, Publisher
from bobrai.broker.queues import PREFIX, Queues
from bobrai.broker.subscription import WATCHDOG_SECONDS, RabbitSubscription
from bobrai.domain import message


@cache
def _properties(priority: int) -> spec.Basic.Properties:
    return spec.Basic.Properties(content_type=message.CONTENT_TYPE, delivery_mode=2, priority=priority)


class RabbitBroker:
    """A process's way to RabbitMQ, over one connection (see `port.Broker`).

    `url` may name several nodes, separated by commas; `name` is what the broker's own tools show. Times in
    seconds. `make_context`: whom amqps nodes must be vouched for by, asked at every connection; None: by whom the
    system knows. Raises ConfigurationError when a URL is not one.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "bobrai",
        prefix: str = PREFIX,
        connect_timeout: float = CONNECT_TIMEOUT,
        confirm_timeout: float = CONFIRM_TIMEOUT,
        watchdog_seconds: float = WATCHDOG_SECONDS,
        make_context: MakeContext | None = None,
    ) -> None:
        self._link = Link(parse_urls(url), name, connect_timeout, make_context)
        self._queues = Queues(self._link, prefix)
        self._publisher = Publisher(self._link, self._queues, confirm_timeout)
        self._dead_letters = DeadLetters(self._link, self._queues, self._publisher)
        self._watchdog_seconds = watchdog_seconds
        self._subscriptions: list[RabbitSubscription] = []

    async def start(self) -> None:
        """Return at once; connect in the background and keep connecting, for ever."""
        self._link.start()
        self._dead_letters.start()

    async def close(self) -> None:
        """End all subscriptions, then the connection. Idempotent."""
        subscriptions, self._subscriptions = self._subscriptions, []
        await asyncio.gather(*(subscription.close() for subscription in subscriptions))
        await self._dead_letters.close()
        await self._link.close()

    @property
    def connected(self) -> bool:
        """Whether the connection is up, as far as this side can know."""
        return self._link.connected

    async def wait_connected(self) -> None:
        """Return once connected; the caller sets the deadline."""
        await self._link.wait_connected()

    @property
    def server_version(self) -> tuple[int, ...]:
        """The broker's version, such as (4, 3, 6). Raises BrokerUnavailable."""
        return self._link.server_version

    async def publish(self, queue: str, messages: Sequence[OutgoingMessage]) -> list[bool]:
        """Publish all messages at once and wait for every confirm (see `port.Broker`)."""
        return await self._publisher.publish(
            queue, [(_properties(priority), message.encode(hints)) for hints, priority in messages]
        )

    async def depth(self, queue: str) -> int:
        """The number of messages that wait in the queue (see `port.Broker`)."""
        return (await self._queues.declare(queue)).ready

    async def delete(self, queue: str) -> None:
        """Delete the queue with every message in it (see `port.Broker`)."""
        await self._queues.delete(queue)

    def forget(self, queue: str) -> None:
        """Give up the queue's channel (see `port.Broker`)."""
        self._queues.forget(queue)
        self._publisher.forget(queue)

    def subscribe(self, queue: str, prefetch: int, on_delivery: OnDelivery) -> RabbitSubscription:
        """Consume a queue, now or as soon as the broker can be reached (see `port.Broker`)."""
        subscription = RabbitSubscription(
            self._link, self._queues, self._dead_letters, queue, prefetch, on_delivery, self._watchdog_seconds
        )
        self._subscriptions.append(subscription)
        return subscription
