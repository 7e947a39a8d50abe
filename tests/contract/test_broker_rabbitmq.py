"""RabbitMQ keeps the broker's promises."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bobrai.broker.rabbitmq import RabbitBroker
from tests.contract.broker_contract import BrokerContract
from tests.support.rabbitmq import VirtualHost


class TestRabbitBroker(BrokerContract):
    @pytest.fixture
    async def broker(self, rabbitmq: VirtualHost) -> AsyncIterator[RabbitBroker]:
        broker = RabbitBroker(rabbitmq.url)
        await broker.start()
        async with asyncio.timeout(10):
            await broker.wait_connected()
        yield broker
        await broker.close()

    @pytest.fixture
    def limit(self, rabbitmq: VirtualHost) -> Callable[[str, int], Awaitable[None]]:
        async def limit(queue: str, length: int) -> None:
            policy = {
                "pattern": f"^bobrai\\.{queue}$",
                "apply-to": "queues",
                "definition": {"max-length": length, "overflow": "reject-publish"},
            }
            await asyncio.to_thread(rabbitmq.management.call, "PUT", f"/policies/{rabbitmq.name}/limit", policy)

        return limit

    async def is_idle(self, broker: RabbitBroker) -> bool:  # type: ignore[override]
        return (await broker._queues.declare(self.queue)).consumers == 0

    @pytest.fixture
    def priorities_are_strict(self, broker: RabbitBroker) -> bool:
        """Quorum queues order strictly by priority since RabbitMQ 4.3; before that they only prefer high ones."""
        return broker.server_version >= (4, 3)
