"""A removed queue leaves nothing behind in RabbitMQ, and one that is not ours to delete is left and told of."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest

from bobrai.broker.rabbitmq import RabbitBroker
from bobrai.telemetry.logs import captured
from tests.contract.broker_contract import message
from tests.support.eventually import eventually
from tests.support.rabbitmq import VirtualHost


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


@pytest.fixture
def bound_user(rabbitmq: VirtualHost) -> Iterator[str]:
    """The URL of a user who may configure no queue but `bobrai.own`."""
    name = f"bound-{rabbitmq.name}"
    manage = rabbitmq.management.call
    manage("PUT", f"/users/{quote(name, safe='')}", {"password": "bound", "tags": ""})
    permissions = {"configure": "^bobrai\\.own$", "write": ".*", "read": ".*"}
    manage("PUT", f"/permissions/{quote(rabbitmq.name, safe='')}/{quote(name, safe='')}", permissions)
    yield re.sub("//[^@]*@", f"//{quote(name, safe='')}:bound@", rabbitmq.url)
    manage("DELETE", f"/users/{quote(name, safe='')}")


async def test_a_deleted_queue_is_gone_for_everybody(rabbitmq: VirtualHost) -> None:
    async with connected(rabbitmq.url) as broker:
        await broker.publish("media", [message(1)])
        await broker.depth("other")
        await broker.delete("media")
        assert set(await asyncio.to_thread(rabbitmq.management.queues, rabbitmq.name)) == {"bobrai.other"}


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


async def test_a_queue_that_is_not_ours_to_delete_is_left_and_told_of(rabbitmq: VirtualHost, bound_user: str) -> None:
    async with connected(rabbitmq.url) as owner, connected(bound_user) as broker:
        await owner.publish("media", [message(1)])
        await broker.publish("own", [message(1)])
        with captured() as lines:
            await broker.delete("media")
            await broker.delete("own")
        (left,) = [line for line in lines if line["event"] == "broker.queue.left"]
        assert left["queue"] == "bobrai.media"
        assert "ACCESS_REFUSED" in left["reason"]
        assert await owner.depth("media") == 1
        assert set(await asyncio.to_thread(rabbitmq.management.queues, rabbitmq.name)) == {"bobrai.media"}
