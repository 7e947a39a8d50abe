"""Publishing with confirms: a batch goes out at once, and its confirms are awaited together.

In: contents for one queue. Out: one outcome for each. Every queue has a channel of its own, so that a queue without a
majority, or one that is gone, holds up no other. Next: `channels.py`.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from aio_pika.abc import AbstractChannel
from aiormq import spec
from aiormq.abc import AbstractChannel as Underlay
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from bobrai.broker.channels import LinkedChannel
from bobrai.broker.link import Link, broker_errors
from bobrai.broker.queues import Queues
from bobrai.domain.errors import BrokerUnavailable

MAX_BODY_FRAME = 4096 - 8  # bytes: the smallest frame that every AMQP peer must accept, less its frame's own bytes
CONFIRM_TIMEOUT = 10.0  # seconds until the outcome of a batch counts as unknown

Content = tuple[spec.Basic.Properties, bytes]


class _Batch:
    """The publishes of one call, and the broker's answers so far."""

    def __init__(self, first: int, size: int) -> None:
        self.first = first  # the delivery tag of the first publish
        self.last = first + size - 1
        self.outcomes: list[bool | None] = [None] * size
        self.open = size
        self.unroutable = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next = 0  # all before this position are answered

    def settle(self, tag: int, *, multiple: bool, confirmed: bool) -> None:
        """Note an answer for one tag of this batch, or for all of its tags up to that one."""
        position = min(tag, self.last) - self.first
        for index in range(self._next if multiple else position, position + 1):
            if self.outcomes[index] is None:
                self.outcomes[index] = confirmed
                self.open -= 1
        if multiple:
            self._next = max(self._next, position + 1)
        if not self.open and not self.done.done():
            self.done.set_result(None)


class PublishChannel(LinkedChannel):
    """A channel with publisher confirms, for one queue."""

    def __init__(self, link: Link, channel: AbstractChannel, underlay: Underlay) -> None:
        super().__init__(link, channel, underlay)
        self._next_tag = 1
        self._batches: deque[_Batch] = deque()
        self.ended.add_done_callback(lambda ended: self._fail(ended.result()))

    @classmethod
    async def open(cls, link: Link) -> "PublishChannel":
        """Open one. Raises BrokerUnavailable."""
        channel = await link.open_channel(publisher_confirms=True)
        return cls(link, channel, await channel.get_underlay_channel())

    async def publish(self, routing_key: str, contents: Sequence[Content]) -> list[bool] | None:
        """Publish all and wait for every confirm; True is confirmed, False refused, None: there is no such queue.

        Raises BrokerUnavailable when the channel ends first. The caller sets the deadline.
        """
        frames: list[Any] = []
        publish = spec.Basic.Publish(routing_key=routing_key, mandatory=True)
        for properties, body in contents:
            frames += (publish, ContentHeader(0, len(body), properties))
            frames += [ContentBody(body[at : at + MAX_BODY_FRAME]) for at in range(0, len(body), MAX_BODY_FRAME)]
        await self._underlay.write_queue.put(self._frames(frames))
        # No await from here to the append: tags count in the order in which batches reach the writer.
        if self.ended.done():
            raise BrokerUnavailable(self.ended.result())
        batch = _Batch(self._next_tag, len(contents))
        self._next_tag += len(contents)
        self._batches.append(batch)
        await batch.done
        return None if batch.unroutable else [outcome is True for outcome in batch.outcomes]

    def _handle(self, frame: Any) -> bool:
        if isinstance(frame, spec.Basic.Ack | spec.Basic.Nack):
            self._answer(frame.delivery_tag or 0, bool(frame.multiple), isinstance(frame, spec.Basic.Ack))
            return True
        if isinstance(frame, spec.Basic.Return):
            # A return does not say which publish it answers, and a queue that is gone has lost the others as well.
            for batch in self._batches:
                batch.unroutable = True
            return True
        if isinstance(frame, ContentHeader | ContentBody):
            return True  # the content of a return
        return super()._handle(frame)

    def _answer(self, tag: int, multiple: bool, confirmed: bool) -> None:
        for batch in self._batches:
            if tag < batch.first:
                break
            if multiple or tag <= batch.last:
                batch.settle(tag, multiple=multiple, confirmed=confirmed)
        while self._batches and not self._batches[0].open:
            self._batches.popleft()

    def _fail(self, reason: str) -> None:
        for batch in self._batches:
            if not batch.done.done():
                batch.done.set_exception(BrokerUnavailable(reason))
        self._batches.clear()


class Publisher:
    """The publishing half of the broker."""

    def __init__(self, link: Link, queues: Queues, confirm_timeout: float = CONFIRM_TIMEOUT) -> None:
        self._link = link
        self._queues = queues
        self._confirm_timeout = confirm_timeout
        self._channels: dict[str, PublishChannel] = {}
        self._opening = asyncio.Lock()

    async def publish(self, queue: str, contents: Sequence[Content]) -> list[bool]:
        """Publish all; True is confirmed, False refused. Raises BrokerUnavailable when the outcome is unknown."""
        if not contents:
            return []
        name = self._queues.name(queue)
        with broker_errors(f"publishing to {name}"):
            try:
                async with asyncio.timeout(self._confirm_timeout):
                    for _ in range(2):  # the second time when the queue was gone
                        await self._link.unblocked()
                        await self._queues.ensure(queue)
                        outcomes = await (await self._channel(queue)).publish(name, contents)
                        if outcomes is not None:
                            return outcomes
                        self._queues.forget(queue)
            except TimeoutError:
                # What the broker still buffers for this channel is dropped with it, and will be published again.
                self.forget(queue)
                raise
        raise BrokerUnavailable(f"queue {name} vanishes as often as it is declared")

    def forget(self, queue: str) -> None:
        """Close the queue's channel; the next publish opens another."""
        channel = self._channels.pop(queue, None)
        if channel is not None:
            channel.retire()

    async def _channel(self, queue: str) -> PublishChannel:
        channel = self._channels.get(queue)
        if channel is None or channel.ended.done():
            async with self._opening:
                channel = self._channels.get(queue)
                if channel is None or channel.ended.done():
                    channel = self._channels[queue] = await PublishChannel.open(self._link)
        return channel
