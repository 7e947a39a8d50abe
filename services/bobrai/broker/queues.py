"""Queues in RabbitMQ: their names, how they are declared and deleted, and what a look at one shows.

In: bobrAI's queue names. Out: durable quorum queues with no optional argument, because everything that may change later
is a policy (`definitions.py`). Next: `publisher.py` and `subscription.py`, which declare before they use.
"""

import asyncio
from typing import Final, NamedTuple

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource, ChannelPreconditionFailed

from bobrai.broker.link import RPC_TIMEOUT, Link, broker_errors
from bobrai.domain.errors import BrokerUnavailable
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

PREFIX: Final = "bobrai."
DEAD_LETTERS: Final = "_dead-letters"  # no queue of tasks can have this name: theirs begin with a letter or digit
ARGUMENTS: Final = {"x-queue-type": "quorum"}

_NOT_OURS = (ChannelPreconditionFailed, ChannelAccessRefused, ChannelLockedResource)


class QueueState(NamedTuple):
    """Messages that wait, and consumers of all processes."""

    ready: int
    consumers: int


class Queues:
    """Declares queues on a channel of its own, so that a refusal hits no publisher and no consumer."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self._lock = asyncio.Lock()
        self._channel: AbstractChannel | None = None
        self._connection: AbstractConnection | None = None
        self._declared: set[str] = set()  # on the present connection
        self._foreign: set[str] = set()  # made differently by an operator, or not ours to declare

    def name(self, queue: str) -> str:
        """The queue's name in RabbitMQ."""
        return self._prefix + queue

    async def ensure(self, queue: str) -> None:
        """Declare the queue, once per connection. Raises BrokerUnavailable."""
        if queue not in self._declared or self._connection is not self._link.connection:
            await self.declare(queue)

    def forget(self, queue: str) -> None:
        """Make the next `ensure` declare again: the queue turned out to be gone."""
        self._declared.discard(queue)

    async def declare(self, queue: str) -> QueueState:
        """Declare the queue and look at it.

        A queue that exists with other arguments is reported once and used as it is. Raises BrokerUnavailable.
        """
        async with self._lock:
            if self._connection is not self._link.connection:
                self._connection = self._link.connection
                self._declared.clear()
            if queue not in self._foreign:
                try:
                    return await self._ask(queue, passive=False)
                except BrokerUnavailable as error:
                    if not isinstance(error.__cause__, _NOT_OURS):
                        raise
                    log.warning("broker.queue.differs", queue=self.name(queue), reason=str(error.__cause__))
                    self._foreign.add(queue)
            try:
                return await self._ask(queue, passive=True)
            except BrokerUnavailable:
                self._foreign.discard(queue)
                raise

    async def delete(self, queue: str) -> None:
        """Delete the queue, whatever is in it; one that is not ours to delete is reported and left. Raises as above."""
        name = self.name(queue)
        async with self._lock:
            try:
                channel = await self._opened()
                with broker_errors(f"deleting {name}"):
                    await channel.queue_delete(name, timeout=RPC_TIMEOUT)
            except BrokerUnavailable as error:
                if not isinstance(error.__cause__, _NOT_OURS):
                    raise
                log.warning("broker.queue.left", queue=name, reason=str(error.__cause__))
            self._declared.discard(queue)
            self._foreign.discard(queue)

    async def _opened(self) -> AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._link.open_channel(publisher_confirms=False)
        return self._channel

    async def _ask(self, queue: str, *, passive: bool) -> QueueState:
        name = self.name(queue)
        channel = await self._opened()
        with broker_errors(f"declaring {name}"):
            declared = await channel.declare_queue(
                name, durable=True, passive=passive, arguments=None if passive else dict(ARGUMENTS), timeout=RPC_TIMEOUT
            )
        self._declared.add(queue)
        result = declared.declaration_result
        return QueueState(result.message_count or 0, result.consumer_count or 0)
