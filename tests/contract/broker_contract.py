"""The promises of `broker/port.py`, each as a test; a broker takes part by subclassing `BrokerContract`.

The subclass gives a connected broker and a way to limit a queue's length. Nothing here knows which broker it is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from bobrai.broker.port import Broker, Delivery, OutgoingMessage, Subscription
from bobrai.domain.errors import BrokerUnavailable
from bobrai.domain.message import Hint
from tests.support.eventually import eventually, stays

QUIET_SECONDS = 0.3  # in which a delivery would have come, if it were to come


def message(task_id: int, priority: int = 0) -> OutgoingMessage:
    """A message of one hint."""
    return OutgoingMessage([Hint(task_id, 0)], priority)


class Inbox:
    """Keeps the deliveries of a subscription, in order."""

    def __init__(self, *, acks: bool = False) -> None:
        self.deliveries: list[Delivery] = []
        self.acks = acks

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self.acks:
            delivery.ack()

    @property
    def ids(self) -> list[int]:
        """The task ids that arrived, in order."""
        return [hint.task_id for delivery in self.deliveries for hint in delivery.hints]

    def __len__(self) -> int:
        return len(self.deliveries)

    async def has(self, count: int, timeout: float = 5.0) -> None:
        """Wait until this many deliveries are here, and no more."""
        await eventually(lambda: len(self) >= count, timeout, message=f"{count} deliveries arrive")
        assert len(self) == count

    async def stays_at(self, count: int) -> None:
        """Watch that no more arrive."""
        await stays(lambda: len(self) == count, QUIET_SECONDS, message=f"no more than {count} deliveries")


class BrokerContract:
    """Not collected by itself. `broker` is connected when a test gets it."""

    queue = "media"

    @pytest.fixture
    def broker(self) -> Broker:
        raise NotImplementedError

    @pytest.fixture
    def limit(self) -> Callable[[str, int], Awaitable[None]]:
        """Limits the length of an existing queue."""
        raise NotImplementedError

    @pytest.fixture
    def priorities_are_strict(self) -> bool:
        """Whether this broker says that a higher priority always leaves first."""
        raise NotImplementedError

    async def fill(self, broker: Broker, count: int) -> None:
        assert await broker.publish(self.queue, [message(number) for number in range(1, count + 1)]) == [True] * count

    async def subscribe(self, broker: Broker, prefetch: int, inbox: Inbox) -> Subscription:
        subscription = broker.subscribe(self.queue, prefetch, inbox)
        await eventually(lambda: subscription.consuming, message="the subscription consumes")
        return subscription

    # --- publishing

    async def test_a_confirmed_message_is_in_the_queue(self, broker: Broker) -> None:
        assert await broker.publish(self.queue, [message(1), message(2)]) == [True, True]
        assert await broker.depth(self.queue) == 2

    async def test_publishing_nothing_is_fine(self, broker: Broker) -> None:
        assert await broker.publish(self.queue, []) == []

    async def test_a_bundle_arrives_as_it_was_sent(self, broker: Broker) -> None:
        sent = OutgoingMessage([Hint(7, 0), Hint(2**63 - 1, 2**31 - 1)], 10)
        inbox = Inbox(acks=True)
        await broker.publish(self.queue, [sent])
        await self.subscribe(broker, 1, inbox)
        await inbox.has(1)
        [got] = inbox.deliveries
        assert (got.queue, got.hints, got.priority, got.redelivered) == (self.queue, sent.hints, 10, False)

    async def test_a_bundle_of_many_hints_arrives_whole(self, broker: Broker) -> None:
        hints = [Hint(2**62 + number, number) for number in range(20_000)]
        inbox = Inbox(acks=True)
        assert await broker.publish(self.queue, [OutgoingMessage(hints), message(1)]) == [True, True]
        await self.subscribe(broker, 10, inbox)
        await inbox.has(2)
        assert sorted(len(delivery.hints) for delivery in inbox.deliveries) == [1, 20_000]
        assert hints in [delivery.hints for delivery in inbox.deliveries]

    async def test_what_exceeds_the_maximum_length_is_refused_and_the_rest_confirmed(
        self, broker: Broker, limit: Callable[[str, int], Awaitable[None]]
    ) -> None:
        await broker.depth(self.queue)
        await limit(self.queue, 5)
        outcomes: list[bool] = []

        async def is_refused() -> bool:
            outcomes.extend(await broker.publish(self.queue, [message(1)] * 3))
            return not outcomes[-1]

        # RabbitMQ learns of a new limit, and of having reached it, a little late; but its answers are true.
        await eventually(is_refused, message="the queue refuses")
        assert await broker.publish("other", [message(1)]) == [True]
        assert outcomes[:5] == [True] * 5
        assert await broker.depth(self.queue) == sum(outcomes)
        await self.subscribe(broker, 100, Inbox(acks=True))
        await eventually(lambda: self.is_accepted(broker), message="the queue has room again")

    async def is_accepted(self, broker: Broker) -> bool:
        return await broker.publish(self.queue, [message(1)]) == [True]

    # --- deleting

    async def test_a_deleted_queue_has_lost_its_messages(self, broker: Broker) -> None:
        await self.fill(broker, 3)
        await broker.publish("other", [message(1)])
        await broker.delete(self.queue)
        assert await broker.depth(self.queue) == 0
        assert await broker.depth("other") == 1

    async def test_deleting_a_queue_that_is_not_there_is_fine(self, broker: Broker) -> None:
        for _ in range(2):
            await broker.delete("never-made")

    async def test_a_deleted_or_forgotten_queue_takes_messages_again(self, broker: Broker) -> None:
        for _ in range(3):
            await self.fill(broker, 2)
            assert await broker.depth(self.queue) == 2
            await broker.delete(self.queue)
            broker.forget(self.queue)

    async def test_forgetting_a_queue_keeps_its_messages(self, broker: Broker) -> None:
        await self.fill(broker, 2)
        broker.forget(self.queue)
        broker.forget("never-made")
        assert await broker.depth(self.queue) == 2

    async def test_a_consumer_of_a_deleted_queue_goes_on(self, broker: Broker) -> None:
        inbox = Inbox(acks=True)
        subscription = await self.subscribe(broker, 5, inbox)
        await broker.delete(self.queue)
        await self.fill(broker, 2)
        await inbox.has(2, timeout=15.0)
        assert subscription.queue == self.queue

    # --- publishing at once

    async def test_publishes_at_the_same_time_get_their_own_answers(self, broker: Broker) -> None:
        async def publish(queue: str, size: int) -> list[bool]:
            return await broker.publish(queue, [message(number + 1) for number in range(size)])

        sizes = [1 + number % 7 for number in range(60)]
        answers = await asyncio.gather(*(publish(f"queue-{n % 3}", size) for n, size in enumerate(sizes)))
        assert answers == [[True] * size for size in sizes]
        assert sum([await broker.depth(f"queue-{n}") for n in range(3)]) == sum(sizes)

    async def test_a_cancelled_publish_does_no_harm_to_the_next(self, broker: Broker) -> None:
        tasks = [asyncio.create_task(broker.publish(self.queue, [message(n)] * 5)) for n in range(1, 20)]
        await asyncio.sleep(0)
        for cancelled in tasks[::2]:
            cancelled.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [task.result() for task in tasks[1::2]] == [[True] * 5] * len(tasks[1::2])
        assert await broker.publish(self.queue, [message(1)]) == [True]

    # --- consuming

    async def test_the_prefetch_holds_the_next_delivery_back(self, broker: Broker) -> None:
        inbox = Inbox()
        await self.fill(broker, 5)
        await self.subscribe(broker, 2, inbox)
        await inbox.has(2)
        await inbox.stays_at(2)
        assert await broker.depth(self.queue) == 3
        inbox.deliveries[0].ack()
        await inbox.has(3)
        await inbox.stays_at(3)

    async def test_acked_messages_never_come_back(self, broker: Broker) -> None:
        inbox, again = Inbox(acks=True), Inbox()
        await self.fill(broker, 50)
        first = await self.subscribe(broker, 10, inbox)
        await inbox.has(50)
        await first.close()
        await self.subscribe(broker, 10, again)
        await again.stays_at(0)
        assert await broker.depth(self.queue) == 0

    async def test_the_last_acks_are_sent_before_the_end(self, broker: Broker) -> None:
        inbox = Inbox()
        await self.fill(broker, 20)
        subscription = await self.subscribe(broker, 20, inbox)
        await inbox.has(20)
        for delivery in inbox.deliveries[::2]:
            delivery.ack()
        await subscription.close()
        await self.depth_becomes(broker, 10)

    async def depth_becomes(self, broker: Broker, depth: int) -> None:
        async def is_there() -> bool:
            return await broker.depth(self.queue) == depth

        await eventually(is_there, message=f"the depth is {depth}")

    async def test_acks_in_any_order_settle_just_those(self, broker: Broker) -> None:
        inbox = Inbox()
        await self.fill(broker, 40)
        subscription = await self.subscribe(broker, 40, inbox)
        await inbox.has(40)
        for position in (3, 0, 2, 39, 1, 20, 21, 5):
            inbox.deliveries[position].ack()
            await asyncio.sleep(0)
        await subscription.close()
        kept = set(range(1, 41)) - {inbox.deliveries[at].hints[0].task_id for at in (3, 0, 2, 39, 1, 20, 21, 5)}
        again = Inbox(acks=True)
        await self.subscribe(broker, 40, again)
        await again.has(len(kept))
        assert set(again.ids) == kept

    async def test_a_second_ack_is_ignored(self, broker: Broker) -> None:
        inbox = Inbox()
        await self.fill(broker, 3)
        await self.subscribe(broker, 2, inbox)
        await inbox.has(2)
        for _ in range(3):
            inbox.deliveries[0].ack()
            await asyncio.sleep(0)
        await inbox.has(3)
        await inbox.stays_at(3)
        inbox.deliveries[1].ack()
        inbox.deliveries[2].ack()
        await self.fill(broker, 2)
        await inbox.has(5)

    async def test_unacked_deliveries_come_back_after_close_marked_as_redelivered(self, broker: Broker) -> None:
        inbox, again = Inbox(), Inbox(acks=True)
        await self.fill(broker, 4)
        subscription = await self.subscribe(broker, 3, inbox)
        await inbox.has(3)
        await subscription.close()
        assert not subscription.consuming
        await self.subscribe(broker, 10, again)
        await again.has(4)
        marks = {delivery.hints[0].task_id: delivery.redelivered for delivery in again.deliveries}
        assert marks == {1: True, 2: True, 3: True, 4: False}

    async def test_an_ack_after_close_is_dropped_without_an_error(self, broker: Broker) -> None:
        inbox, again = Inbox(), Inbox()
        await self.fill(broker, 1)
        subscription = await self.subscribe(broker, 1, inbox)
        await inbox.has(1)
        await subscription.close()
        inbox.deliveries[0].ack()
        await self.subscribe(broker, 1, again)
        await again.has(1)

    async def test_a_failing_callback_stops_nothing(self, broker: Broker) -> None:
        seen: list[int] = []

        def fail_once(delivery: Delivery) -> None:
            seen.append(delivery.hints[0].task_id)
            if len(seen) == 1:
                raise RuntimeError("a bug in the caller")
            delivery.ack()

        await self.fill(broker, 5)
        broker.subscribe(self.queue, 2, fail_once)
        await eventually(lambda: len(seen) == 5)

    async def test_two_subscriptions_share_a_queue(self, broker: Broker) -> None:
        left, right = Inbox(), Inbox()
        await self.subscribe(broker, 5, left)
        await self.subscribe(broker, 5, right)
        await self.fill(broker, 10)
        await left.has(5)
        await right.has(5)
        assert sorted(left.ids + right.ids) == list(range(1, 11))

    async def test_a_higher_priority_leaves_first_where_that_is_promised(
        self, broker: Broker, priorities_are_strict: bool
    ) -> None:
        inbox = Inbox(acks=True)
        order = [0, 5, 10, 1, 9, 5, 0, 10]
        await broker.publish(self.queue, [message(number, priority) for number, priority in enumerate(order, 1)])
        await self.subscribe(broker, 1, inbox)
        await inbox.has(len(order))
        priorities = [delivery.priority for delivery in inbox.deliveries]
        assert sorted(priorities) == sorted(order)
        assert (priorities == sorted(order, reverse=True)) is priorities_are_strict

    # --- resizing, pausing, closing

    async def test_more_prefetch_lets_more_arrive(self, broker: Broker) -> None:
        inbox = Inbox()
        await self.fill(broker, 10)
        subscription = await self.subscribe(broker, 2, inbox)
        await inbox.has(2)
        subscription.resize(6)
        await inbox.has(6)
        await inbox.stays_at(6)

    async def test_less_prefetch_lets_nothing_arrive_until_enough_is_acked(self, broker: Broker) -> None:
        inbox = Inbox()
        await self.fill(broker, 10)
        subscription = await self.subscribe(broker, 4, inbox)
        await inbox.has(4)
        subscription.resize(2)
        inbox.deliveries[0].ack()
        await inbox.stays_at(4)
        inbox.deliveries[1].ack()
        await inbox.stays_at(4)
        inbox.deliveries[2].ack()
        await inbox.has(5)
        await inbox.stays_at(5)

    async def test_old_deliveries_can_be_acked_after_a_resize(self, broker: Broker) -> None:
        inbox, again = Inbox(), Inbox()
        await self.fill(broker, 6)
        subscription = await self.subscribe(broker, 3, inbox)
        await inbox.has(3)
        subscription.resize(1)
        await inbox.stays_at(3)
        for delivery in inbox.deliveries[:3]:
            delivery.ack()
        await inbox.has(4)
        await subscription.close()
        await self.subscribe(broker, 10, again)
        await again.has(3)
        assert sorted(again.ids) == [4, 5, 6]

    async def test_a_prefetch_of_none_stops_and_can_be_undone(self, broker: Broker) -> None:
        inbox = Inbox(acks=True)
        subscription = await self.subscribe(broker, 3, inbox)
        await self.fill(broker, 2)
        await inbox.has(2)
        subscription.resize(0)
        await eventually(lambda: self.is_idle(broker), message="no consumer is left")
        await self.fill(broker, 2)
        await inbox.stays_at(2)
        subscription.resize(3)
        await inbox.has(4)

    async def is_idle(self, broker: Broker) -> bool:
        """Whether the broker would deliver nothing now, as far as it can be asked."""
        return True

    async def test_resizing_often_loses_and_doubles_nothing(self, broker: Broker) -> None:
        inbox = Inbox()
        await self.fill(broker, 600)
        subscription = await self.subscribe(broker, 10, inbox)
        done: set[int] = set()
        most = 0

        async def step(number: int) -> bool:
            nonlocal most
            fresh = [delivery for delivery in inbox.deliveries if delivery.hints[0].task_id not in done]
            most = max(most, len(fresh))
            subscription.resize(1 + number % 10)
            for delivery in fresh[: 1 + number % 3]:
                done.add(delivery.hints[0].task_id)
                delivery.ack()
            return len(done) == 600

        number = 0
        async with asyncio.timeout(50):
            while not await step(number):
                number += 1
                await asyncio.sleep(0.001)
        assert sorted(inbox.ids) == list(range(1, 601))
        assert most <= 10
        await subscription.close()
        await self.depth_becomes(broker, 0)

    async def test_nothing_arrives_once_paused_and_acks_still_count(self, broker: Broker) -> None:
        inbox, again = Inbox(), Inbox()
        await self.fill(broker, 5)
        subscription = await self.subscribe(broker, 2, inbox)
        await inbox.has(2)
        await subscription.pause()
        assert not subscription.consuming
        inbox.deliveries[0].ack()
        await inbox.stays_at(2)
        await subscription.close()
        await self.subscribe(broker, 10, again)
        await again.has(4)
        assert sorted(again.ids) == [2, 3, 4, 5]

    async def test_pausing_at_once_delivers_nothing_later(self, broker: Broker) -> None:
        inbox = Inbox()
        await self.fill(broker, 5)
        subscription = broker.subscribe(self.queue, 5, inbox)
        await subscription.pause()
        here = len(inbox)
        await inbox.stays_at(here)

    async def test_pause_and_close_can_be_repeated(self, broker: Broker) -> None:
        subscription = await self.subscribe(broker, 1, Inbox())
        for _ in range(2):
            await subscription.pause()
        for _ in range(2):
            await subscription.close()
        await broker.close()
        await broker.close()
        assert not broker.connected

    async def test_a_closed_broker_publishes_nothing(self, broker: Broker) -> None:
        await broker.close()
        with pytest.raises(BrokerUnavailable):
            await broker.publish(self.queue, [message(1)])
        with pytest.raises(BrokerUnavailable):
            await broker.depth(self.queue)

    # --- much

    async def test_ten_thousand_messages_arrive_once_each(self, broker: Broker) -> None:
        inbox = Inbox(acks=True)
        subscriptions: Sequence[Subscription] = [await self.subscribe(broker, 50, inbox) for _ in range(2)]
        for first in range(1, 10_001, 500):
            batch = [message(number) for number in range(first, first + 500)]
            assert await broker.publish(self.queue, batch) == [True] * 500
        await eventually(lambda: len(inbox) >= 10_000, 40, message="all arrive")
        await inbox.stays_at(10_000)
        assert sorted(inbox.ids) == list(range(1, 10_001))
        for subscription in subscriptions:
            await subscription.close()
        await self.depth_becomes(broker, 0)
