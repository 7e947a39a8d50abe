"""The relay publishes what is due, once it is due, in order, within the window, and loses nothing on the way."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from bobrai.dispatcher import relay as relay_module
from bobrai.dispatcher.relay import Relay
from bobrai.domain.errors import BrokerUnavailable
from bobrai.domain.message import Hint
from bobrai.runtime import wakeups as wakeups_module
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.wakeups import Wakeups
from bobrai.settings import Settings
from bobrai.store import queues, workers
from bobrai.store.outbox import CHANNEL
from bobrai.store.pool import Database
from bobrai.store.queues import Wishes
from tests.integration.dispatcher.conftest import Broker
from tests.integration.store.builders import outbox_rows, submitted, submitted_one, worker
from tests.support.authors import SOMEBODY
from tests.support.eventually import eventually, stays

MakeSettings = Callable[..., Settings]
Start = Callable[..., "asyncio.Task[None]"]


async def relay_for(settings: Settings, store: Database, broker: Broker) -> Relay:
    """A relay whose rounds the test does."""
    return Relay(settings, store, broker)


async def until_nothing_moves(relay: Relay, rounds: int = 50) -> None:
    """Do rounds until one says that there is nothing to do now."""
    for _ in range(rounds):
        if await relay.run_once() > 0:
            return
    raise AssertionError("the relay never rests")


async def test_what_is_due_is_published_and_leaves_the_outbox(
    settings_with: MakeSettings, store: Database, broker: Broker
) -> None:
    due = [*await submitted(store, 3, priority=2), *await submitted(store, 2, queue="other")]
    later = await submitted_one(store, delay_seconds=60.0)
    await until_nothing_moves(await relay_for(settings_with(), store, broker))
    assert sorted(hint.task_id for hint in broker.hints()) == due
    assert [row["task_id"] for row in await outbox_rows(store)] == [later]
    assert {(queue, message.priority) for queue, message in broker.published} == {("default", 2), ("other", 0)}


async def test_one_hint_per_message_while_nothing_is_known(
    settings_with: MakeSettings, store: Database, broker: Broker
) -> None:
    await worker(store)
    await submitted(store, 20)
    await until_nothing_moves(await relay_for(settings_with(), store, broker))
    assert [len(message.hints) for _, message in broker.published] == [1] * 20


async def test_short_tasks_travel_in_bundles_of_one_priority(
    settings_with: MakeSettings, store: Database, broker: Broker
) -> None:
    await workers.report_speeds(store, await worker(store), {"default": 1000.0})
    low, high = await submitted(store, 120), await submitted(store, 70, priority=9)
    await until_nothing_moves(await relay_for(settings_with(), store, broker))
    assert [(len(message.hints), message.priority) for _, message in broker.published] == [
        (50, 9), (20, 9), (50, 0), (50, 0), (20, 0),
    ]  # fmt: skip
    assert [hint.task_id for hint in broker.hints()] == [*high, *low]


async def test_the_window_leaves_the_backlog_where_an_urgent_task_overtakes_it(
    settings_with: MakeSettings, store: Database, broker: Broker
) -> None:
    await submitted(store, 500)
    relay = await relay_for(settings_with(window=50), store, broker)
    await until_nothing_moves(relay)
    assert len(broker.hints()) == 50
    urgent = await submitted_one(store, priority=10)
    broker.consume("default", 40)
    await eventually(lambda: _moved(relay, broker, 51))
    assert broker.hints()[50] == Hint(urgent, 0)
    assert len(broker.hints()) <= 90


async def _moved(relay: Relay, broker: Broker, at_least: int) -> bool:
    await relay.run_once()
    return len(broker.hints()) >= at_least


async def test_little_load_asks_the_broker_for_no_depth(
    settings_with: MakeSettings, store: Database, broker: Broker
) -> None:
    relay = await relay_for(settings_with(), store, broker)
    for _ in range(20):
        await submitted(store)
        await until_nothing_moves(relay)
    assert (len(broker.hints()), broker.depths_asked) == (20, 0)


async def test_one_queues_backlog_does_not_starve_another(
    settings_with: MakeSettings, store: Database, broker: Broker
) -> None:
    await submitted(store, 300)
    for number in range(5):
        await submitted(store, 2, queue=f"small{number}")
    relay = await relay_for(settings_with(batch_size=20, window=10_000), store, broker)
    for _ in range(8):
        await relay.run_once()
    assert {queue for queue, _ in broker.published} == {"default", *(f"small{number}" for number in range(5))}


async def test_a_paused_queue_is_left_alone_at_once(
    settings_with: MakeSettings, store: Database, broker: Broker
) -> None:
    relay = await relay_for(settings_with(), store, broker)
    await submitted(store)
    await until_nothing_moves(relay)
    await queues.change(store, "default", Wishes(paused=True), by=SOMEBODY)
    await submitted(store, 3)
    await until_nothing_moves(relay)
    assert len(broker.hints()) == 1


async def test_without_a_broker_no_row_is_touched(settings_with: MakeSettings, store: Database, broker: Broker) -> None:
    await submitted(store, 3)
    relay = await relay_for(settings_with(), store, broker)
    broker.lose()
    before = await store.fetch("SELECT task_id, xmin::text FROM outbox ORDER BY task_id")
    assert await relay.run_once() > 0
    assert await store.fetch("SELECT task_id, xmin::text FROM outbox ORDER BY task_id") == before
    assert not relay.relaying
    broker.come_back()
    await until_nothing_moves(relay)
    assert (len(broker.hints()), relay.relaying) == (3, True)


async def test_a_broker_lost_in_the_middle_keeps_every_row(
    settings_with: MakeSettings, store: Database, broker: Broker
) -> None:
    await submitted(store, 3)
    broker.broken = {"default"}
    relay = await relay_for(settings_with(), store, broker)
    with pytest.raises(BrokerUnavailable):
        await relay.run_once()
    assert len(await outbox_rows(store)) == 3
    assert store.in_use == 0


async def test_a_broker_that_is_back_is_used_at_once_whatever_it_refused_before_it_went(
    settings_with: MakeSettings, store: Database, broker: Broker
) -> None:
    await submitted(store, 3)
    broker.broken = {"default"}
    relay = await relay_for(settings_with(), store, broker)
    with pytest.raises(BrokerUnavailable):
        await relay.run_once()
    broker.lose()
    await relay.run_once()
    broker.broken = set()
    broker.come_back()
    await relay.run_once()
    assert len(broker.hints()) == 3


async def test_one_queue_in_trouble_does_not_hold_up_the_others(
    settings_with: MakeSettings, store: Database, broker: Broker
) -> None:
    await submitted(store, 3)
    await submitted(store, 4, queue="other")
    broker.broken = {"default"}
    relay = await relay_for(settings_with(), store, broker)
    await until_nothing_moves(relay)
    assert len(broker.hints("other")) == 4
    assert [row["queue"] for row in await outbox_rows(store)] == ["default"] * 3
    broker.broken = set()
    await eventually(lambda: _moved(relay, broker, 7))


async def test_hints_that_the_broker_refuses_stay_for_the_next_round(
    settings_with: MakeSettings, store: Database
) -> None:
    """The queue is at its maximum length: some go in, the rest waits its turn."""
    full = Broker(max_length=4)
    await full.start()
    ids = await submitted(store, 10)
    relay = await relay_for(settings_with(), store, full)
    await until_nothing_moves(relay)
    assert [row["task_id"] for row in await outbox_rows(store)] == ids[4:]
    full.consume("default", 4)
    await eventually(lambda: _moved(relay, full, 8))
    assert [hint.task_id for hint in full.hints()] == ids[:8]


async def test_a_crash_between_confirm_and_commit_publishes_again(
    settings_with: MakeSettings, store: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await submitted(store, 3)

    def crash(name: str) -> None:
        if name == "relay.published":
            raise SystemExit

    monkeypatch.setattr(relay_module, "checkpoint", crash)
    with pytest.raises(SystemExit):
        await (await relay_for(settings_with(), store, broker)).run_once()
    assert len(await outbox_rows(store)) == 3
    monkeypatch.undo()
    await until_nothing_moves(await relay_for(settings_with(), store, broker))
    assert sorted(broker.hints()) == sorted(2 * broker.hints()[:3])
    assert await outbox_rows(store) == []


async def test_replicas_share_the_work(settings_with: MakeSettings, store: Database, broker: Broker) -> None:
    ids = await submitted(store, 400)
    replicas = [await relay_for(settings_with(batch_size=30, window=1000), store, broker) for _ in range(3)]
    async with asyncio.timeout(20):
        while await outbox_rows(store):
            await asyncio.gather(*(relay.run_once() for relay in replicas))
    assert sorted(hint.task_id for hint in broker.hints()) == ids


# --- woken, not polled -----------------------------------------------------------------------------------------------


@pytest.fixture
async def awake(settings_with: MakeSettings, store: Database, broker: Broker, running: Start) -> Any:
    """A relay that runs with its wakeups, and whose safety poll would come too late for any test."""
    settings = settings_with(poll_seconds=600.0)
    stop = Stop()
    relay = Relay(settings, store, broker)
    wakeups = Wakeups(settings.database, CHANNEL, relay.wake, name="notify")
    running(relay.run(stop))
    running(wakeups.run(stop))
    await eventually(lambda: wakeups.listening and relay.relaying)
    return wakeups


async def test_a_submit_wakes_the_relay(awake: Wakeups, store: Database, broker: Broker) -> None:
    for _ in range(5):
        broker.published.clear()
        await submitted(store)
        await eventually(lambda: len(broker.hints()) == 1, timeout=5.0)


async def test_a_queue_of_a_minute_ago_is_served_at_once(awake: Wakeups, store: Database, broker: Broker) -> None:
    await submitted(store, queue="brand-new")
    await eventually(lambda: len(broker.hints("brand-new")) == 1, timeout=5.0)


async def test_a_delayed_task_is_published_when_it_falls_due(awake: Wakeups, store: Database, broker: Broker) -> None:
    await submitted(store, delay_seconds=0.3)
    began = time.monotonic()
    await eventually(lambda: len(broker.hints()) == 1, timeout=5.0)
    assert 0.2 < time.monotonic() - began < 2.0


async def test_a_lost_listener_is_replaced_and_nothing_said_meanwhile_is_missed(
    awake: Wakeups, store: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'bobrai-listener' AND datname = current_database()"
    )
    await submitted(store)
    await eventually(lambda: len(broker.hints()) == 1, timeout=10.0)
    await eventually(lambda: awake.listening)


async def test_a_silent_listener_is_found_by_its_check(
    settings_with: MakeSettings, store: Database, broker: Broker, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups_module, "CHECK_SECONDS", 0.05)
    woken: list[int] = []
    wakeups = Wakeups(settings_with().database, CHANNEL, lambda: woken.append(1), name="notify")
    running(wakeups.run(Stop()))
    await eventually(lambda: wakeups.listening)
    await stays(lambda: wakeups.listening, 0.3)
    assert len(woken) == 1


async def test_the_safety_poll_finds_what_nobody_said(
    settings_with: MakeSettings, store: Database, broker: Broker, running: Start
) -> None:
    running(Relay(settings_with(poll_seconds=0.05), store, broker).run(Stop()))
    await submitted(store)
    await eventually(lambda: len(broker.hints()) == 1)


async def test_the_broker_coming_back_wakes_the_relay(awake: Wakeups, store: Database, broker: Broker) -> None:
    broker.lose()
    await submitted(store, 5)
    await stays(lambda: not broker.published, 0.2)
    broker.come_back()
    await eventually(lambda: len(broker.hints()) == 5, timeout=5.0)


async def test_an_idle_relay_rests(
    settings_with: MakeSettings, store: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing due, or with a full window before a backlog, it does not spin."""
    relay = await relay_for(settings_with(window=10, poll_seconds=3.0), store, broker)
    assert await relay.run_once() == 3.0
    await submitted(store, delay_seconds=1.0)
    assert 0.5 < await relay.run_once() <= 1.0
    await submitted(store, 50)
    await until_nothing_moves(relay)
    assert 0.005 <= await relay.run_once() <= 0.2
