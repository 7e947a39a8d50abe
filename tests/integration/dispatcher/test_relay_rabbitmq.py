"""The relay before a real RabbitMQ: confirmed messages, a bounded window, and what workers gets in which order."""

from collections.abc import AsyncIterator, Callable

import pytest

from bobrai.broker.rabbitmq import RabbitBroker
from bobrai.dispatcher.relay import Relay
from bobrai.domain.message import Hint
from bobrai.settings import Settings
from bobrai.store import workers
from bobrai.store.pool import Database
from tests.integration.store.builders import outbox_rows, submitted, submitted_one, worker
from tests.support.eventually import eventually
from tests.support.rabbitmq import VirtualHost


@pytest.fixture
async def rabbit(rabbitmq: VirtualHost) -> AsyncIterator[RabbitBroker]:
    """The product's way to a virtual host of this test's own."""
    rabbit = RabbitBroker(rabbitmq.url)
    await rabbit.start()
    await rabbit.wait_connected()
    yield rabbit
    await rabbit.close()


async def test_the_window_is_kept_by_the_brokers_own_count_until_all_is_out(
    settings_with: Callable[..., Settings], store: Database, rabbit: RabbitBroker
) -> None:
    ids = await submitted(store, 300)
    relay = Relay(settings_with(window=60), store, rabbit)
    while not await relay.run_once():
        pass
    assert await rabbit.depth("default") == 60

    got: list[Hint] = []

    def take(delivery: object) -> None:
        got.extend(delivery.hints)  # type: ignore[attr-defined]
        delivery.ack()  # type: ignore[attr-defined]

    urgent = await submitted_one(store, priority=10)
    subscription = rabbit.subscribe("default", 10, take)

    async def all_out() -> bool:
        await relay.run_once()
        return len(got) == 301

    await eventually(all_out, timeout=20.0)
    assert {hint.task_id for hint in got} == {*ids, urgent}
    assert [hint.task_id for hint in got].index(urgent) < 150, "it overtook the backlog"
    assert await outbox_rows(store) == []
    await subscription.close()


async def test_bundles_arrive_as_they_were_cut(
    settings_with: Callable[..., Settings], store: Database, rabbit: RabbitBroker
) -> None:
    await workers.report_speeds(store, await worker(store), {"default": 2000.0})
    ids = await submitted(store, 250)
    relay = Relay(settings_with(window=1000), store, rabbit)
    while not await relay.run_once():
        pass
    sizes: list[int] = []
    got: list[int] = []

    def take(delivery: object) -> None:
        sizes.append(len(delivery.hints))  # type: ignore[attr-defined]
        got.extend(hint.task_id for hint in delivery.hints)  # type: ignore[attr-defined]
        delivery.ack()  # type: ignore[attr-defined]

    subscription = rabbit.subscribe("default", 10, take)
    await eventually(lambda: len(got) == 250)
    assert (sizes, got) == ([100, 100, 50], ids)
    await subscription.close()
