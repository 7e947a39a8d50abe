"""Queues come back for what waits in them, and go: from the table, the broker, the metrics and the relay's memory."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client import REGISTRY

from bobrai.broker.rabbitmq import RabbitBroker
from bobrai.dispatcher import keeper as keeper_module
from bobrai.dispatcher.keeper import Keeper
from bobrai.dispatcher.main import serve
from bobrai.dispatcher.measuring import Measuring
from bobrai.dispatcher.relay import Relay
from bobrai.domain.errors import BrokerUnavailable
from bobrai.domain.task import TaskType
from bobrai.runtime.lifecycle import Stop
from bobrai.settings import Settings
from bobrai.store import queues, submission, task_types
from bobrai.store.pool import Database
from bobrai.store.purging import Purge
from bobrai.telemetry.logs import captured
from tests.integration.dispatcher.conftest import Broker
from tests.integration.store.builders import new_task, submitted, worker
from tests.support.authors import SOMEBODY
from tests.support.eventually import eventually
from tests.support.rabbitmq import VirtualHost

MakeSettings = Callable[..., Settings]
Start = Callable[..., "asyncio.Task[None]"]


class Deleting(Broker):
    """A broker that tells what was deleted, and can refuse it."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[str] = []
        self.forgotten: list[str] = []
        self.looked_at: list[str] = []

    async def depth(self, queue: str) -> int:
        self.looked_at.append(queue)
        return await super().depth(queue)

    async def delete(self, queue: str) -> None:
        if queue in self.broken:
            raise BrokerUnavailable(f"nobody answers for {queue}")
        self.deleted.append(queue)
        await super().delete(queue)

    def forget(self, queue: str) -> None:
        self.forgotten.append(queue)


@pytest.fixture
async def deleting() -> AsyncIterator[Deleting]:
    """A started one."""
    broker = Deleting()
    await broker.start()
    yield broker
    await broker.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete without a grace, and look at retentions in every round."""
    monkeypatch.setattr(keeper_module, "GRACE_SECONDS", -1.0)
    monkeypatch.setattr(keeper_module, "RETIRE_SECONDS", 0.0)


def keeper(settings: Settings, store: Database, broker: Broker, used: set[str] | None = None) -> Keeper:
    """A keeper whose rounds the test does."""
    return Keeper(settings, store, broker, lambda: used or set())


async def rows(store: Database) -> list[str]:
    """Every row of `queues`, removed or not."""
    return [row["name"] for row in await store.fetch("SELECT name FROM queues ORDER BY name")]


async def test_a_removed_queue_goes_in_the_broker_and_then_its_row(
    settings_with: MakeSettings, store: Database, deleting: Deleting, at_once: None
) -> None:
    await queues.ensure(store, ["media", "other"])
    await queues.remove(store, "media", by=SOMEBODY)
    await keeper(settings_with(), store, deleting).run_once()
    assert deleting.deleted == ["media"]
    assert await rows(store) == ["default", "other"]


async def test_it_is_left_for_a_while_to_whoever_still_knows_it(
    settings_with: MakeSettings, store: Database, deleting: Deleting
) -> None:
    await queues.ensure(store, ["media"])
    await queues.remove(store, "media", by=SOMEBODY)
    await keeper(settings_with(), store, deleting).run_once()
    assert deleting.deleted == []
    await store.fetch("UPDATE queues SET removed_at = now() - interval '20 s' WHERE removed_at IS NOT NULL")
    await keeper(settings_with(), store, deleting).run_once()
    assert deleting.deleted == ["media"]


async def test_one_that_cannot_be_deleted_holds_up_no_other_and_is_told_of_once(
    settings_with: MakeSettings, store: Database, deleting: Deleting, at_once: None
) -> None:
    await queues.ensure(store, ["a", "b"])
    for name in ("a", "b"):
        await queues.remove(store, name, by=SOMEBODY)
    deleting.broken = {"a"}
    keeping = keeper(settings_with(), store, deleting)
    with captured() as lines:
        for _ in range(3):
            await keeping.run_once()
    assert [line["queue"] for line in lines if line["event"] == "queue.undeleted"] == ["a"]
    assert await rows(store) == ["a", "default"]
    deleting.broken = set()
    await keeping.run_once()
    assert await rows(store) == ["default"]


async def test_a_task_that_came_after_the_removal_is_published(
    settings_with: MakeSettings, store: Database, deleting: Deleting, at_once: None
) -> None:
    await queues.ensure(store, ["media"])
    relay = Relay(settings_with(), store, deleting)
    await relay.run_once()
    await queues.remove(store, "media", by=SOMEBODY)
    ids = await submission.submit(store, [new_task(queue="media")])
    await relay.run_once()
    assert deleting.hints() == []
    await keeper(settings_with(), store, deleting).run_once()
    assert deleting.deleted == []

    async def published() -> bool:
        await relay.run_once()
        return [hint.task_id for hint in deleting.hints("media")] == ids

    await eventually(published, message="the task is published")


async def test_queues_and_types_that_nobody_uses_go_after_their_retention(
    settings_with: MakeSettings, store: Database, deleting: Deleting, at_once: None
) -> None:
    await queues.ensure(store, ["idle", "used"])
    await task_types.announce(store, [TaskType(name="gone"), TaskType(name="had")])
    await store.fetch(
        "INSERT INTO workers (queues, host, concurrency, expires_at, types)"
        " VALUES ('{}', 'h', 1, now() + interval '1 h', '{had}')"
    )
    past = "now() - interval '367 days'"
    await store.fetch(f"UPDATE queues SET used_at = {past}, created_at = {past}")
    await store.fetch(f"UPDATE task_types SET seen_at = {past}")
    for_ever = settings_with(queue_retention_seconds=0, type_retention_seconds=0)
    await keeper(for_ever, store, deleting).run_once()
    assert (await rows(store), len(await task_types.every(store))) == (["default", "idle", "used"], 2)
    await keeper(settings_with(), store, deleting, {"used"}).run_once()
    assert (await rows(store), [each.name for each in await task_types.every(store)]) == (["default", "used"], ["had"])


async def test_the_relay_says_which_queues_are_used(
    settings_with: MakeSettings, store: Database, broker: Broker
) -> None:
    await submitted(store, 2, queue="media")
    await queues.ensure(store, ["idle"])
    relay = Relay(settings_with(), store, broker)
    await relay.run_once()
    assert relay.take_used() == {"media"}
    assert relay.take_used() == set()


async def test_nothing_of_a_removed_queue_stays_in_the_process(
    settings_with: MakeSettings, store: Database, deleting: Deleting
) -> None:
    def series() -> set[str]:
        return {
            sample.name
            for family in REGISTRY.collect()
            for sample in family.samples
            if sample.labels.get("queue") == "media"
        }

    await submitted(store, 2, queue="media")
    relay = Relay(settings_with(), store, deleting)
    measuring = Measuring(settings_with(), store, deleting)
    await relay.run_once()
    await measuring.run_once()
    assert {"bobrai_hints_relayed_total", "bobrai_queue_tasks", "bobrai_relay_lag_seconds_bucket"} <= series()
    await Purge(store, "media", by=SOMEBODY).cancel_waiting(limit=10)
    await queues.remove(store, "media", by=SOMEBODY)
    deleting.looked_at.clear()
    await measuring.run_once()
    assert deleting.looked_at == ["default"], "a look would make the queue anew"
    await relay._refresh()
    assert series() == set()
    assert "media" not in relay._windows
    assert deleting.forgotten == ["media"]


async def test_a_queue_that_is_removed_is_gone_from_rabbitmq_and_comes_back_with_a_task(
    settings_with: MakeSettings, store: Database, rabbitmq: VirtualHost, running: Start, at_once: None
) -> None:
    settings, stop = settings_with(), Stop()
    broker = RabbitBroker(rabbitmq.url)
    running(serve(settings, broker, stop))

    async def there() -> bool:
        return "bobrai.media" in await asyncio.to_thread(rabbitmq.management.queues, rabbitmq.name)

    async def gone() -> bool:
        return not await there() and await rows(store) == ["default"]

    try:
        await submitted(store, queue="media")
        await eventually(there, 20)
        await Purge(store, "media", by=SOMEBODY).cancel_waiting(limit=10)
        assert await queues.remove(store, "media", by=SOMEBODY) == (True, False, 0, 0)
        await eventually(gone, 20, message="the queue is gone everywhere")
        await worker(store, queues=("media",))
        await submission.submit(store, [new_task(queue="media")])
        await eventually(there, 20, message="the queue is back")
        await eventually(lambda: _ready(rabbitmq), 20, message="the task is published")
    finally:
        stop.request("the test is over")
        await broker.close()


async def _ready(rabbitmq: VirtualHost) -> bool:
    found = await asyncio.to_thread(rabbitmq.management.queues, rabbitmq.name)
    return found["bobrai.media"].ready == 1
