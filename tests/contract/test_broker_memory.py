"""The in-process broker keeps the broker's promises."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bobrai.broker.memory import MemoryBroker
from bobrai.domain.errors import BrokerUnavailable
from tests.contract.broker_contract import BrokerContract, message


class TestMemoryBroker(BrokerContract):
    @pytest.fixture
    async def broker(self) -> AsyncIterator[MemoryBroker]:
        broker = MemoryBroker()
        await broker.start()
        yield broker
        await broker.close()

    @pytest.fixture
    def limit(self, broker: MemoryBroker) -> Callable[[str, int], Awaitable[None]]:
        async def limit(queue: str, length: int) -> None:
            broker._max_length = length

        return limit

    @pytest.fixture
    def priorities_are_strict(self) -> bool:
        return True

    async def test_before_start_it_is_away(self) -> None:
        broker = MemoryBroker()
        assert not broker.connected
        with pytest.raises(BrokerUnavailable):
            await broker.publish(self.queue, [message(1)])
