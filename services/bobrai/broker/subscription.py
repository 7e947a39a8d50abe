"""A consumer of one queue that heals: after a lost connection, a cancelled consumer, or one that silently died.

In: a wish (queue, prefetch, whom to call). Out: deliveries, from `channels.py`. One coroutine per subscription opens
the channel, keeps its consumers at the wished prefetch, and looks after them when nothing arrives.
"""

import asyncio

from bobrai.broker.consumer import ConsumeChannel, Malformed
from bobrai.broker.dead_letters import DeadLetters
from bobrai.broker.link import Backoff, Link
from bobrai.broker.port import OnDelivery
from bobrai.broker.queues import Queues
from bobrai.domain.errors import BrokerUnavailable
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)

WATCHDOG_SECONDS = 10.0  # without a delivery, until the queue is looked at
SILENT_LOOKS = 2  # looks at a queue that has messages for us and delivers none, until the consumer counts as dead
MOST_SILENT_LOOKS = 32  # when issuing it again did not help, as with an operator's single active consumer
GROW_PAUSE = 0.05  # seconds in which room from cancelled consumers adds up before a new one is issued
MAX_CONSUMERS = 8  # on one channel; more are put together


class RabbitSubscription:
    """A subscription to RabbitMQ (see `port.Subscription`)."""

    def __init__(
        self,
        link: Link,
        queues: Queues,
        dead_letters: DeadLetters,
        queue: str,
        prefetch: int,
        on_delivery: OnDelivery,
        watchdog_seconds: float = WATCHDOG_SECONDS,
    ) -> None:
        self.queue = queue
        self._link = link
        self._queues = queues
        self._dead_letters = dead_letters
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._watchdog_seconds = watchdog_seconds
        self._paused = False
        self._consuming = False
        self._channel: ConsumeChannel | None = None
        self._adjusted = asyncio.Event()
        self._seen = 0
        self._silent = 0
        self._patience = SILENT_LOOKS
        self._last_reason = ""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"broker-subscription-{queue}")

    @property
    def consuming(self) -> bool:
        """Whether deliveries can arrive now (see `port.Subscription`)."""
        return self._consuming and not self._paused and self._link.connected

    def resize(self, prefetch: int) -> None:
        """Allow this many unacked deliveries from now on (see `port.Subscription`)."""
        shrinks, self._prefetch = prefetch < self._prefetch, prefetch
        if self._channel is not None:
            self._channel.hold_acks = self._channel.hold_acks or shrinks
            self._channel.changed.set()

    async def pause(self) -> None:
        """Return when no further delivery can arrive; those here can still be acked."""
        self._paused = True
        while (channel := self._channel) is not None and channel.active and not channel.ended.done():
            self._adjusted.clear()
            channel.changed.set()
            await self._adjusted.wait()

    async def close(self) -> None:
        """Send what was acked, give every other delivery back to the queue, and end."""
        self._paused = True
        channel = self._channel
        if channel is not None:
            channel.release_acks()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if channel is not None:
            await channel.close()

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            await self._link.wait_connected()
            try:
                await self._queues.declare(self.queue)
                channel = await ConsumeChannel.open(self._link, self.queue, self._on_delivery, self._on_malformed)
                await self._serve(channel, backoff)
            except BrokerUnavailable as error:
                self._interrupted(str(error))
            except Exception:
                log.exception("broker.subscription.failed", queue=self.queue)
            await backoff.pause()

    async def _serve(self, channel: ConsumeChannel, backoff: Backoff) -> None:
        """Consume until the channel ends, which raises BrokerUnavailable."""
        self._channel = channel
        self._seen = self._silent = 0
        try:
            while True:
                channel.changed.clear()
                await self._adjust(channel)
                self._started(channel)
                backoff.reset()
                try:
                    async with asyncio.timeout(self._watchdog_seconds):
                        await channel.changed.wait()
                except TimeoutError:
                    await self._look_after(channel)
        finally:
            self._consuming = False
            self._channel = None
            self._adjusted.set()
            channel.retire()

    async def _adjust(self, channel: ConsumeChannel) -> None:
        """Bring the consumers' places in line with the wish, without ever exceeding it.

        A consumer's prefetch cannot be changed. A smaller one takes its place only as its deliveries are acked, since
        those still count; so a channel may have several consumers for a while.
        """
        if channel.ended.done():
            raise BrokerUnavailable(channel.ended.result())
        if channel.consumers and channel.capacity < self._wanted:
            await asyncio.sleep(GROW_PAUSE)
        crowded = len(channel.active) >= MAX_CONSUMERS and channel.capacity < self._wanted
        for tag in sorted(channel.active, key=lambda tag: channel.consumers[tag].prefetch):
            if channel.capacity > self._wanted or crowded:
                await channel.cancel(tag)
        if channel.hold_acks:
            channel.release_acks()
        channel.forget_cancelled()
        room = self._wanted - channel.capacity
        if room > 0:
            await channel.consume(self._queues.name(self.queue), room)
        self._adjusted.set()

    @property
    def _wanted(self) -> int:
        return 0 if self._paused else self._prefetch

    async def _look_after(self, channel: ConsumeChannel) -> None:
        """Nothing has changed for a while: make sure that this is because there is nothing to deliver."""
        if channel.delivered != self._seen:
            self._seen, self._silent, self._patience = channel.delivered, 0, SILENT_LOOKS
            return
        if self._wanted == 0 or channel.full:
            return
        state = await self._queues.declare(self.queue)  # also finds a connection that is dead
        if not state.ready or channel.delivered != self._seen:
            self._silent = 0
            return
        self._silent += 1
        if self._silent < self._patience and state.consumers:
            return
        self._silent, self._patience = 0, min(self._patience * 2, MOST_SILENT_LOOKS)
        self._consuming = False
        metrics.CONSUMER_RESTARTS.labels(self.queue, "silent").inc()
        log.warning("broker.consumer.silent", queue=self.queue, ready=state.ready, consumers=state.consumers)
        for tag in channel.active:
            await channel.cancel(tag)

    def _started(self, channel: ConsumeChannel) -> None:
        if not self._consuming and not self._paused and (channel.active or channel.capacity):
            log.info("broker.consuming", queue=self.queue, prefetch=self._prefetch)
            self._last_reason = ""
        self._consuming = True

    def _interrupted(self, reason: str) -> None:
        """Say once why this queue is not consumed; an outage of the whole connection is told by the link."""
        metrics.CONSUMER_RESTARTS.labels(self.queue, "lost").inc()
        if self._link.connected and reason != self._last_reason:
            log.warning("broker.consumer.lost", queue=self.queue, reason=reason)
        self._last_reason = reason

    def _on_malformed(self, malformed: Malformed) -> None:
        self._dead_letters.take(self.queue, malformed)
