"""The consuming channel of one queue: turns frames into deliveries, and settled deliveries into few acks.

In: consumers to issue and to cancel, from `subscription.py`. Out: deliveries, one plain call each, and no task.
Next: `channels.py` (frames) and `acks.py` (which tags to ack together).
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

from aio_pika.abc import AbstractChannel
from aiormq import spec
from aiormq.abc import AbstractChannel as Underlay
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from bobrai.broker.acks import AckLedger
from bobrai.broker.channels import LinkedChannel
from bobrai.broker.link import RPC_TIMEOUT, Link, broker_errors
from bobrai.broker.port import OnDelivery
from bobrai.domain import message
from bobrai.domain.errors import BrokerUnavailable, MalformedMessage
from bobrai.domain.message import Hint
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)

WRITER_BUSY_PAUSE = 0.005  # seconds until acks are tried again when the connection's writer is behind


class Consumer:
    """One consumer of a channel: the broker keeps at most `prefetch` of its deliveries unacked."""

    __slots__ = ("active", "prefetch", "unacked")

    def __init__(self, prefetch: int) -> None:
        self.prefetch = prefetch
        self.unacked = 0
        self.active = True


class Malformed(NamedTuple):
    """A delivery that is not a bundle of hints."""

    body: bytes
    properties: spec.Basic.Properties
    reason: str
    settle: Callable[[], None]  # acks it; call this once it is safe elsewhere
    ended: "asyncio.Future[str]"  # done when its channel has ended, and it will come again


class RabbitDelivery:
    """A delivery of RabbitMQ (see `port.Delivery`)."""

    __slots__ = ("_channel", "_consumer", "_tag", "hints", "priority", "queue", "redelivered")

    def __init__(
        self, channel: "ConsumeChannel", consumer: Consumer, frame: spec.Basic.Deliver, hints: list[Hint], priority: int
    ) -> None:
        self.queue = channel.queue
        self.hints = hints
        self.priority = priority
        self.redelivered = bool(frame.redelivered)
        self._channel: ConsumeChannel | None = channel
        self._consumer = consumer
        self._tag = frame.delivery_tag or 0

    def ack(self) -> None:
        """Let the broker forget the message (see `port.Delivery`)."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.settle(self._consumer, self._tag)


class ConsumeChannel(LinkedChannel):
    """A channel that consumes one queue, with one consumer or several whose prefetches add up."""

    def __init__(
        self,
        link: Link,
        channel: AbstractChannel,
        underlay: Underlay,
        queue: str,
        on_delivery: OnDelivery,
        on_malformed: Callable[[Malformed], None],
    ) -> None:
        super().__init__(link, channel, underlay)
        self.queue = queue
        self.consumers: dict[str, Consumer] = {}  # by tag; cancelled ones stay while they hold deliveries
        self.delivered = 0
        self.changed = asyncio.Event()  # a consumer's end, or room that a cancelled consumer gave back
        self.hold_acks = False  # until consumers are cancelled, so that the broker does not refill what an ack frees
        self._on_delivery = on_delivery
        self._on_malformed = on_malformed
        self._acks = AckLedger()
        self._flushing = False
        self._issued = 0
        self._frame = spec.Basic.Deliver()
        self._header = ContentHeader()
        self._body = b""
        self.ended.add_done_callback(lambda _: self.changed.set())

    @classmethod
    async def open(
        cls, link: Link, queue: str, on_delivery: OnDelivery, on_malformed: Callable[[Malformed], None]
    ) -> "ConsumeChannel":
        """Open one, without a consumer yet. Raises BrokerUnavailable."""
        channel = await link.open_channel(publisher_confirms=False)
        return cls(link, channel, await channel.get_underlay_channel(), queue, on_delivery, on_malformed)

    @property
    def capacity(self) -> int:
        """Deliveries that may be unacked at once: what consumers may hold, and what cancelled ones still hold."""
        return sum(c.prefetch if c.active else c.unacked for c in self.consumers.values())

    @property
    def full(self) -> bool:
        """Whether no delivery may arrive until one is acked."""
        return all(c.unacked >= c.prefetch for c in self.consumers.values() if c.active)

    @property
    def active(self) -> dict[str, Consumer]:
        """The consumers that the broker feeds, by tag."""
        return {tag: consumer for tag, consumer in self.consumers.items() if consumer.active}

    async def consume(self, name: str, prefetch: int) -> None:
        """Add a consumer of the broker's queue `name`. Raises BrokerUnavailable; then the channel is of no more use."""
        self._issued += 1
        tag = f"bobrai-{self._issued}"
        with broker_errors(f"consuming {name}"):
            await self._underlay.basic_qos(prefetch_count=prefetch, timeout=RPC_TIMEOUT)
            self.consumers[tag] = Consumer(prefetch)
            # Deliveries are taken before the library would call back.
            await self._underlay.basic_consume(name, _never_called, consumer_tag=tag, timeout=RPC_TIMEOUT)

    async def cancel(self, tag: str) -> None:
        """End a consumer; its deliveries stay valid. Raises BrokerUnavailable."""
        with broker_errors("cancelling a consumer"):
            await self._underlay.basic_cancel(tag, timeout=RPC_TIMEOUT)
        self._cancelled(tag)

    def forget_cancelled(self) -> None:
        """Drop consumers that were cancelled and hold nothing."""
        self.consumers = {tag: c for tag, c in self.consumers.items() if c.active or c.unacked}

    def settle(self, consumer: Consumer, tag: int) -> None:
        """Ack one delivery, together with all others of this turn of the loop; dropped when the channel is gone."""
        consumer.unacked -= 1
        self._acks.settle(tag)
        if not consumer.active:
            self.changed.set()
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def release_acks(self) -> None:
        """Send what was held back."""
        self.hold_acks = False
        self._flush()

    async def close(self) -> None:
        """Send the last acks and close; what is unacked goes back to the queue. Raises nothing."""
        if not self.ended.done():
            self._end("the subscription was closed")
            frames = self._ack_frames()
            if frames:
                with contextlib.suppress(BrokerUnavailable), broker_errors("acknowledging"):
                    async with asyncio.timeout(RPC_TIMEOUT):
                        await self._underlay.write_queue.put(self._frames(frames))
        await self._link.close_channel(self._channel)

    def _ack_frames(self) -> list[spec.Basic.Ack]:
        return [spec.Basic.Ack(tag, multiple) for tag, multiple in self._acks.take()]

    def _flush(self) -> None:
        self._flushing = False
        if self.hold_acks or self.ended.done():
            return
        if self._underlay.write_queue.full():
            self._flushing = True
            asyncio.get_running_loop().call_later(WRITER_BUSY_PAUSE, self._flush)
            return
        frames = self._ack_frames()
        if frames:
            self._underlay.write_queue.put_nowait(self._frames(frames))

    def _handle(self, frame: Any) -> bool:
        kind = type(frame)
        if kind is spec.Basic.Deliver:
            self._frame = frame
        elif kind is ContentHeader:
            self._header, self._body = frame, b""
            if not frame.body_size:
                self._deliver(b"")
        elif kind is ContentBody:
            self._body = self._body + frame.value if self._body else frame.value
            if len(self._body) >= self._header.body_size:
                self._deliver(self._body)
        else:
            if kind is spec.Basic.Cancel:
                log.warning("broker.consumer.cancelled", queue=self.queue)
                metrics.CONSUMER_RESTARTS.labels(self.queue, "cancelled").inc()
                self._cancelled(frame.consumer_tag)
            return super()._handle(frame)
        return True

    def _deliver(self, body: bytes) -> None:
        frame, properties = self._frame, self._header.properties
        consumer = self.consumers.get(frame.consumer_tag or "")
        if consumer is None:  # cancelled and forgotten: it counts, and gets no more
            consumer = self.consumers[frame.consumer_tag or ""] = Consumer(0)
            consumer.active = False
        consumer.unacked += 1
        self.delivered += 1
        try:
            hints = message.decode(body)
        except MalformedMessage as error:
            tag = frame.delivery_tag or 0
            self._on_malformed(Malformed(body, properties, str(error), lambda: self.settle(consumer, tag), self.ended))
            return
        try:
            self._on_delivery(RabbitDelivery(self, consumer, frame, hints, properties.priority or 0))
        except Exception:
            log.exception("broker.on_delivery.failed", queue=self.queue)

    def _cancelled(self, tag: str) -> None:
        consumer = self.consumers.get(tag)
        if consumer is not None:
            consumer.active = False
            self.changed.set()


async def _never_called(_: Any) -> None:
    raise AssertionError("a delivery reached the library")
