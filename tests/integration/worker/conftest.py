"""The service of these tests: on the in-process broker, and for some on RabbitMQ as well."""

from collections.abc import AsyncIterator

import pytest

from bobrai.broker.memory import MemoryBroker
from bobrai.broker.port import Broker
from bobrai.broker.rabbitmq import RabbitBroker
from tests.integration.worker.service import Service, serving
from tests.support.databases import Database


class SharedBroker(MemoryBroker):
    """The in-process broker, closed once everybody who got it is done: at the end of the test."""

    async def close(self) -> None:
        """Leave it open for the others."""


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    broker = SharedBroker()
    async with serving(database.url, lambda: broker) as service:
        yield service
    await MemoryBroker.close(broker)


@pytest.fixture(params=["memory", "rabbitmq"])
async def either_service(database: Database, request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    """The same on both brokers."""
    if request.param == "memory":
        broker = SharedBroker()

        def new_broker() -> Broker:
            return broker

    else:
        url = request.getfixturevalue("rabbitmq").url

        def new_broker() -> Broker:
            return RabbitBroker(url)

    async with serving(database.url, new_broker) as service:
        yield service
