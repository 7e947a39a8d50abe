"""A real RabbitMQ takes a password with any character, from its own variable, on every node of the list."""

import asyncio
import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from bobrai.broker.rabbitmq import RabbitBroker
from bobrai.settings import RabbitMQSettings
from tests.support.eventually import stays
from tests.support.rabbitmq import VirtualHost

PASSWORD = "p@ss/w:rd %\"'"


@pytest.fixture
def user(rabbitmq: VirtualHost) -> Iterator[str]:
    """A user of this test's own who may do everything in the test's virtual host."""
    name = f"me@{rabbitmq.name}"
    manage = rabbitmq.management.call
    manage("PUT", f"/users/{quote(name, safe='')}", {"password": PASSWORD, "tags": ""})
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    manage("PUT", f"/permissions/{quote(rabbitmq.name, safe='')}/{quote(name, safe='')}", everything)
    yield name
    manage("DELETE", f"/users/{quote(name, safe='')}")


def addresses(monkeypatch: pytest.MonkeyPatch, url: str, user: str, password: str) -> str:
    bare = re.sub("//[^@]*@", "//", url)
    down = re.sub(r"//[^/]*", "//old:older@127.0.0.1:1", url)
    monkeypatch.setenv("BOBRAI_RABBITMQ_URL", f"{down}, {bare}")
    monkeypatch.setenv("BOBRAI_RABBITMQ_USER", user)
    monkeypatch.setenv("BOBRAI_RABBITMQ_PASSWORD", password)
    return RabbitMQSettings().addresses()


async def test_any_password_opens_the_broker(rabbitmq: VirtualHost, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = RabbitBroker(addresses(monkeypatch, rabbitmq.url, user, PASSWORD))
    await broker.start()
    try:
        async with asyncio.timeout(10):
            await broker.wait_connected()
        assert await broker.depth("letters") == 0
    finally:
        await broker.close()


async def test_a_wrong_password_is_refused(rabbitmq: VirtualHost, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = RabbitBroker(addresses(monkeypatch, rabbitmq.url, user, "wrong"))
    await broker.start()
    try:
        await stays(lambda: not broker.connected, 1.0)
    finally:
        await broker.close()
