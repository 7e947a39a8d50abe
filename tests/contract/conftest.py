"""Contract tests run on the event loop of the product's processes, and some as a user who may not do everything."""

import asyncio
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
import uvloop

from tests.support.rabbitmq import VirtualHost

BoundUser = Callable[[str], str]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Name the one loop that each test runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def bound_user(rabbitmq: VirtualHost) -> Iterator[BoundUser]:
    """Makes the URL of a user who may configure only the queues whose names match a pattern."""
    name = f"bound-{rabbitmq.name}"
    manage = rabbitmq.management.call

    def make(configure: str) -> str:
        manage("PUT", f"/users/{quote(name, safe='')}", {"password": "bound", "tags": ""})
        permissions = {"configure": configure, "write": ".*", "read": ".*"}
        manage("PUT", f"/permissions/{quote(rabbitmq.name, safe='')}/{quote(name, safe='')}", permissions)
        return re.sub("//[^@]*@", f"//{quote(name, safe='')}:bound@", rabbitmq.url)

    yield make
    manage("DELETE", f"/users/{quote(name, safe='')}", accept=(404,))
