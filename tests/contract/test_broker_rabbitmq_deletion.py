"""A removed queue leaves nothing behind in RabbitMQ, and one that is not ours to delete is left and told of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

from bobrai.broker.rabbitmq import RabbitBroker
from bobrai.telemetry.logs import captured
from tests.contract.broker_contract import message
from tests.contract.conftest import BoundUser
from tests.support.eventually import eventually
from tests.support.rabbitmq import VirtualHost

DEAD_LETTERS = "bobrai._dead-letters"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RabbitBroker]:
    """A broker until the end of the block."""
    broker = RabbitBroker(url)
    await broker.start()
    try:
        async with asyncio.timeout(10):
            await broker.wait_connected()
        yield broker
    finally:
        await broker.close()


async def test_a_deleted_queue_is_gone_for_everybody(rabbitmq: VirtualHost) -> None:
    async with connected(rabbitmq.url) as broker:
        await broker.publish("media", [message(1)])
        await broker.depth("other")
        await broker.delete("media")
        assert set(await asyncio.to_thread(rabbitmq.management.queues, rabbitmq.name)) - {DEAD_LETTERS} == {
            "bobrai.other"
        }


async def test_forgotten_queues_leave_no_channels(rabbitmq: VirtualHost) -> None:
    def channels() -> int:
        (connection,) = rabbitmq.management.call("GET", f"/vhosts/{quote(rabbitmq.name, safe='')}/connections")
        count: int = connection.get("channels", -1)
        return count

    async with connected(rabbitmq.url) as broker:
        names = [f"q{number}" for number in range(5)]
        for name in names:
            await broker.publish(name, [message(1)])
        with_all = len(names) + 1  # and one that declares
        await eventually(lambda: asyncio.to_thread(lambda: channels() == with_all), 20, message="a channel per queue")
        for name in names:
            broker.forget(name)
        await eventually(lambda: asyncio.to_thread(lambda: channels() == 1), 20, message="their channels are closed")


async def test_a_queue_that_is_not_ours_to_delete_is_left_and_told_of(
    rabbitmq: VirtualHost, bound_user: BoundUser
) -> None:
    async with connected(rabbitmq.url) as owner, connected(bound_user("^bobrai\\.own$")) as broker:
        await owner.publish("media", [message(1)])
        await broker.publish("own", [message(1)])
        with captured() as lines:
            await broker.delete("media")
            await broker.delete("own")
        (left,) = [line for line in lines if line["event"] == "broker.queue.left"]
        assert left["queue"] == "bobrai.media"
        assert "ACCESS_REFUSED" in left["reason"]
        assert await owner.depth("media") == 1
        left_there = set(await asyncio.to_thread(rabbitmq.management.queues, rabbitmq.name))
        assert left_there - {DEAD_LETTERS} == {"bobrai.media"}
