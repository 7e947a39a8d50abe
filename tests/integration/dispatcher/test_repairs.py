"""The reaper, the sweeper, the measuring and the pruner: what each finds, and what it leaves alone."""

import asyncio
import math
import time
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from bobrai.dispatcher import measuring as measuring_module
from bobrai.dispatcher import pruner as pruner_module
from bobrai.dispatcher import reaper as reaper_module
from bobrai.dispatcher.measuring import Measuring
from bobrai.dispatcher.pruner import Pruner
from bobrai.dispatcher.reaper import Reaper
from bobrai.dispatcher.sweeper import Sweeper
from bobrai.domain.errors import DatabaseUnavailable
from bobrai.runtime.lifecycle import Stop
from bobrai.settings import Settings
from bobrai.store import queues, tasks, workers
from bobrai.store.pool import Database
from bobrai.store.queues import Wishes
from bobrai.telemetry.logs import captured
from tests.integration.dispatcher.conftest import Broker
from tests.integration.store.builders import (
    claimed,
    outbox_rows,
    relayed,
    status,
    submitted,
    submitted_one,
    worker,
)
from tests.support.authors import SOMEBODY
from tests.support.refusing import allow, refuse

MakeSettings = Callable[..., Settings]


def sample(name: str, **labels: str) -> float | None:
    """A metric's value now."""
    return REGISTRY.get_sample_value(name, labels)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


async def _age_workers(store: Database) -> None:
    await store.fetch("UPDATE workers SET expires_at = now() - interval '1 s'")


@pytest.fixture
def started_long_ago(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's server has just been started: leave the grace after a restart out."""
    original = workers.expire

    async def expire(database: Database, *, restart_grace_seconds: float) -> object:
        return await original(database, restart_grace_seconds=0.0)

    monkeypatch.setattr(workers, "expire", expire)


async def test_the_reaper_takes_back_what_lost_workers_ran(
    settings_with: MakeSettings, store: Database, started_long_ago: None
) -> None:
    lost, living = await worker(store), await worker(store)
    mine, other = await submitted(store, 2)
    await claimed(store, lost, mine)
    await claimed(store, living, other)
    await store.fetch("UPDATE workers SET expires_at = now() - interval '1 s' WHERE id = $1", lost)
    before = sample("bobrai_workers_expired_total") or 0.0
    await Reaper(settings_with(), store).run_once()
    assert (await status(store, mine), await status(store, other)) == (("pending", 1), ("processing", 1))
    assert sample("bobrai_workers_expired_total") == before + 1


async def test_the_reaper_takes_back_more_than_one_batch(
    settings_with: MakeSettings, store: Database, started_long_ago: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper_module, "BATCH", 10)
    lost = await worker(store)
    for task_id in await submitted(store, 25):
        await claimed(store, lost, task_id)
    await _age_workers(store)
    await Reaper(settings_with(), store).run_once()
    assert await store.fetch("SELECT FROM tasks WHERE status = 'processing'") == []


async def test_a_row_that_cannot_be_written_holds_up_no_other(
    settings_with: MakeSettings, store: Database, started_long_ago: None
) -> None:
    lost, ids = await worker(store), await submitted(store, 5)
    for task_id in ids:
        await claimed(store, lost, task_id)
    await _age_workers(store)
    await refuse(store, "55000", f"new.id = {ids[2]}")
    reaper = Reaper(settings_with(), store)
    with captured() as lines:
        for _ in range(2):
            await reaper.run_once()
    assert [await status(store, task_id) for task_id in ids] == [
        ("processing" if task_id == ids[2] else "pending", 1) for task_id in ids
    ]
    refused = [line for line in lines if line["event"] == "task.take_back_refused"]
    assert [line["task_id"] for line in refused] == [ids[2]], "it is said once"
    await allow(store)
    await reaper.run_once()
    assert await status(store, ids[2]) == ("pending", 1)


async def test_after_an_outage_workers_get_one_lease_to_come_back(
    settings_with: MakeSettings, store: Database, started_long_ago: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database was away nobody could renew; whoever is quickest to return must not be the reaper."""
    clock = Clock()
    monkeypatch.setattr(reaper_module, "time", clock)
    me, task_id = await worker(store), await submitted_one(store)
    await claimed(store, me, task_id)
    await _age_workers(store)
    reaper = Reaper(settings_with(worker={"lease_seconds": 15.0}), store)

    async def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as outage:
        outage.setattr(workers, "expire", away)
        with pytest.raises(DatabaseUnavailable):
            await reaper.run_once()
    for _ in range(3):
        clock.now += 4.9
        await reaper.run_once()
        assert await status(store, task_id) == ("processing", 1)
    clock.now += 0.4
    await reaper.run_once()
    assert await status(store, task_id) == ("pending", 1)


async def test_an_outage_during_the_rest_prolongs_it(
    settings_with: MakeSettings, store: Database, started_long_ago: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(reaper_module, "time", clock)
    me = await worker(store)
    await _age_workers(store)
    reaper = Reaper(settings_with(worker={"lease_seconds": 15.0}), store)

    async def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as outage:
        outage.setattr(Database, "fetch", away)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                await reaper.run_once()
            clock.now += 10.0
    await reaper.run_once()
    assert await _ids(store) == [me]
    clock.now += 5.1
    await reaper.run_once()
    assert await _ids(store) == []


async def _ids(store: Database) -> list[int]:
    return [row["id"] for row in await store.fetch("SELECT id FROM workers")]


async def test_the_sweeper_finds_what_the_broker_lost(
    settings_with: MakeSettings, store: Database, broker: Broker
) -> None:
    lost = await submitted(store, 3)
    await relayed(store)
    await store.fetch("UPDATE tasks SET run_at = run_at - interval '1 h'")
    sweeper = Sweeper(settings_with(), store, broker)
    await sweeper.run_once()
    assert await outbox_rows(store) == [], "the first look only raises a suspicion"
    before = sample("bobrai_tasks_swept_total", queue="default") or 0.0
    await sweeper.run_once()
    assert [row["task_id"] for row in await outbox_rows(store)] == lost
    assert sample("bobrai_tasks_swept_total", queue="default") == before + 3


async def test_the_sweeper_leaves_alone_what_something_may_hold(
    settings_with: MakeSettings, store: Database, broker: Broker
) -> None:
    me = await worker(store)
    in_hand, fresh = await submitted(store, 2)
    await relayed(store)
    await store.fetch("UPDATE tasks SET run_at = run_at - interval '1 h' WHERE id = $1", in_hand)
    sweeper = Sweeper(settings_with(), store, broker)
    await sweeper.run_once()
    await claimed(store, me, in_hand)  # a worker had it, and claims it between two looks
    await sweeper.run_once()
    await sweeper.run_once()
    assert await outbox_rows(store) == []
    assert await status(store, fresh) == ("pending", 0)


@pytest.mark.parametrize("why", ["message", "due row", "paused", "away"])
async def test_the_sweeper_waits_until_nothing_else_can_explain_it(
    settings_with: MakeSettings, store: Database, broker: Broker, why: str
) -> None:
    task_id = await submitted_one(store)
    await relayed(store)
    await store.fetch("UPDATE tasks SET run_at = run_at - interval '1 h'")
    match why:
        case "message":
            await broker.publish("default", [relay_message(task_id)])
        case "due row":
            await submitted(store)
        case "paused":
            await queues.change(store, "default", Wishes(paused=True), by=SOMEBODY)
        case "away":
            broker.lose()
    held = len(await outbox_rows(store))
    sweeper = Sweeper(settings_with(), store, broker)
    for _ in range(3):
        await sweeper.run_once()
    assert len(await outbox_rows(store)) == held


def relay_message(task_id: int) -> object:
    """A message with one hint."""
    from bobrai.broker.port import OutgoingMessage
    from bobrai.domain.message import Hint

    return OutgoingMessage([Hint(task_id, 0)])


def exported(queue: str) -> dict[str, float | None]:
    """The gauges of one queue."""
    states = {state: sample("bobrai_queue_tasks", queue=queue, state=state) for state in ("due", "delayed")}
    return {**states, "depth": sample("bobrai_queue_depth_messages", queue=queue),
            "workers": sample("bobrai_queue_workers", queue=queue)}  # fmt: skip


async def _age_figures(store: Database) -> None:
    await store.fetch("UPDATE queues SET measured_at = measured_at - interval '1 h'")


@pytest.fixture
def counting_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is now, the period stays what the settings say."""
    monkeypatch.setattr(measuring_module, "SHARE", 1e9)


async def test_measuring_exports_what_it_stored(
    settings_with: MakeSettings, store: Database, broker: Broker, counting_costs_nothing: None
) -> None:
    await worker(store, queues=("mail",))
    await submitted(store, 3, queue="mail")
    await submitted(store, 2, queue="mail", delay_seconds=60.0)
    measuring = Measuring(settings_with(measure_seconds=30.0), store, broker)
    await measuring.run_once()
    await broker.publish("mail", [relay_message(1)])  # type: ignore[list-item]
    await _age_figures(store)
    await measuring.run_once()
    assert exported("mail") == {"due": 3.0, "delayed": 2.0, "depth": 1.0, "workers": 1.0}
    stored = {row["name"]: row for row in await queues.every(store)}["mail"]
    assert (stored["due"], stored["delayed"], stored["depth"]) == (3, 2, 1)
    broker.lose()
    await _age_figures(store)
    await measuring.run_once()
    assert math.isnan(exported("mail")["depth"] or 0.0)
    stop = Stop()
    stop.request("test")
    await measuring.run(stop)
    assert exported("mail") == dict.fromkeys(exported("mail"))


async def test_one_of_many_dispatchers_exports_a_queue(
    settings_with: MakeSettings, store: Database, broker: Broker, counting_costs_nothing: None
) -> None:
    """Summed over the replicas, the gauges must be right; the one that measured goes on, until it is gone."""
    replicas = [Measuring(settings_with(measure_seconds=60.0), store, broker) for _ in range(3)]

    async def pass_time(seconds: float) -> None:
        await store.fetch("UPDATE queues SET measured_at = measured_at - make_interval(secs => $1)", seconds)
        for replica in replicas:
            replica._own = {queue: at - seconds for queue, at in replica._own.items()}

    for _ in range(3):
        for replica in replicas:
            await replica.run_once()
        assert [bool(replica._own) for replica in replicas] == [True, False, False]
        await pass_time(61.0)
    await pass_time(130.0)  # it was silent for too long
    await replicas[1].run_once()
    await replicas[0].run_once()
    assert [bool(replica._own) for replica in replicas] == [False, True, False]


async def test_counting_a_lot_is_done_less_often(
    settings_with: MakeSettings, store: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring = Measuring(settings_with(measure_seconds=1.0), store, broker)
    assert measuring._adapt(0.001) == pytest.approx(0.9)
    assert measuring._adapt(0.1) == pytest.approx(4.9)
    assert measuring._adapt(60.0) == pytest.approx(9.9), "scaling depends on what is due"
    for took, expected in ((0.2, 10.0), (None, 10.0), (0.001, 1.0)):

        async def measure(*_: object, took: float | None = took, **__: object) -> queues.Measured:
            return queues.Measured([], 0.9, took)

        monkeypatch.setattr(queues, "measure", measure)
        await measuring.run_once()
        assert measuring._waiting_period == pytest.approx(expected)


async def test_a_gauge_is_gone_before_another_dispatcher_may_show_it(
    settings_with: MakeSettings,
    store: Database,
    broker: Broker,
    counting_costs_nothing: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dispatcher that is frozen or cut off never gets to give its queues up."""
    measuring = Measuring(settings_with(measure_seconds=1.0), store, broker)
    await measuring.run_once()
    assert exported("default")["due"] == 0
    row = (await store.fetch("SELECT measured_every, measured_at FROM queues"))[0]
    assert row["measured_every"] == pytest.approx(0.9)
    clock = Clock()
    clock.now = time.monotonic() + measuring_module.TAKEOVER_PERIODS * row["measured_every"]
    monkeypatch.setattr("bobrai.telemetry.instruments.time", clock)
    assert exported("default") == dict.fromkeys(exported("default"))


async def test_the_pruner_removes_all_that_is_past_its_time_in_batches(
    settings_with: MakeSettings, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruner_module, "BATCH", 10)
    old, fresh = await submitted(store, 35), await submitted(store, 2)
    await store.fetch("UPDATE tasks SET status = 'done', finished_at = now()")
    await store.fetch("UPDATE tasks SET finished_at = now() - interval '2 h' WHERE id = ANY($1::bigint[])", old)
    await store.fetch(
        "INSERT INTO idempotency_keys"
        " SELECT '', 'k' || n, 'x', '{1}', now() - interval '1 s' FROM generate_series(1, 15) AS n"
    )
    await store.fetch(
        "INSERT INTO unique_tasks"
        " SELECT sha256(n::text::bytea), n, 'unfinished', NULL, now() FROM generate_series(1, 15) AS n"
    )
    before = sample("bobrai_tasks_pruned_total") or 0.0
    await Pruner(settings_with(retention_seconds=3600.0), store).run_once()
    assert set(await tasks.read(store, [*old, *fresh])) == set(fresh)
    assert await store.fetch("SELECT FROM idempotency_keys") == []
    assert await store.fetch("SELECT FROM unique_tasks") == []
    assert sample("bobrai_tasks_pruned_total") == before + 35


async def test_the_pruner_forgets_who_changed_what_after_its_retention_or_never(
    settings_with: MakeSettings, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruner_module, "BATCH", 2)
    for task_id in await submitted(store, 6):
        await tasks.cancel(store, task_id, by=SOMEBODY)
    await store.fetch("UPDATE audit SET at = now() - interval '2 h' WHERE id <= 5")
    await Pruner(settings_with(audit_retention_seconds=0), store).run_once()
    assert len(await store.fetch("SELECT FROM audit")) == 6
    await Pruner(settings_with(audit_retention_seconds=3600.0), store).run_once()
    assert [row["id"] for row in await store.fetch("SELECT id FROM audit")] == [6]


async def test_the_pruner_stops_between_two_batches(
    settings_with: MakeSettings, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruner_module, "BATCH", 1)
    monkeypatch.setattr(pruner_module, "LEAST_PAUSE_SECONDS", 600.0)
    await submitted(store, 3)
    await store.fetch("UPDATE tasks SET status = 'done', finished_at = now() - interval '1 h'")
    stop = Stop()
    pruning = asyncio.ensure_future(Pruner(settings_with(retention_seconds=1.0), store).run(stop))
    from tests.support.eventually import eventually

    await eventually(lambda: _left(store, 2))
    stop.request("test")
    await asyncio.wait_for(pruning, 5)
    assert await _left(store, 2)


async def _left(store: Database, count: int) -> bool:
    return len(await store.fetch("SELECT FROM tasks")) == count
