"""The dead-letter queue is there before the first message that belongs into it, and whatever becomes of the broker."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from bobrai.broker import dead_letters
from bobrai.broker.definitions import definitions
from bobrai.telemetry.logs import captured
from tests.contract.broker_contract import message
from tests.contract.conftest import BoundUser
from tests.contract.test_broker_rabbitmq_deletion import connected
from tests.support.eventually import eventually
from tests.support.rabbitmq import VirtualHost

QUEUE = "bobrai._dead-letters"


async def _appears(rabbitmq: VirtualHost) -> dict[str, Any]:
    async def found() -> dict[str, Any] | None:
        path = f"/queues/{quote(rabbitmq.name, safe='')}/{QUEUE}"
        made: dict[str, Any] | None = await asyncio.to_thread(rabbitmq.management.call, "GET", path, accept=(404,))
        return made if made and "name" in made else None

    await eventually(found, 15, message=f"{QUEUE} is there")
    return await found() or {}


async def test_a_process_that_starts_declares_the_dead_letters_as_an_operator_would(rabbitmq: VirtualHost) -> None:
    (wished,) = [queue for queue in definitions([], vhost=rabbitmq.name)["queues"] if queue["name"] == QUEUE]
    async with connected(rabbitmq.url) as broker:
        made = await _appears(rabbitmq)
        assert {key: made[key] for key in wished} == wished
        assert await broker.publish("media", [message(1)]) == [True]


async def test_a_fresh_broker_gets_its_dead_letters_with_the_next_connection(rabbitmq: VirtualHost) -> None:
    async with connected(rabbitmq.url) as broker:
        await _appears(rabbitmq)
        await broker.delete("_dead-letters")
        await eventually(lambda: asyncio.to_thread(rabbitmq.management.close_connections, rabbitmq.name), 15)
        await _appears(rabbitmq)


async def test_a_user_who_may_not_declare_it_works_all_the_same_until_it_is_there(
    rabbitmq: VirtualHost, bound_user: BoundUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "DECLARE_AGAIN_SECONDS", 0.2)
    with captured() as lines:
        async with connected(bound_user(r"^bobrai\.[a-z]")) as broker:
            await eventually(lambda: [line for line in lines if line["event"] == "broker.dead_letters.missing"])
            assert await broker.publish("media", [message(1)]) == [True]
            assert await broker.depth("media") == 1
            async with connected(rabbitmq.url):
                await _appears(rabbitmq)

            async def at_rest() -> bool:
                return "_dead-letters" in broker._queues._declared

            await eventually(at_rest, message="it found the queue that another user made")
