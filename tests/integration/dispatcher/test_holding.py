"""What a limit holds back is not due: no worker is scaled up for it, and no alert calls it late."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from bobrai.dispatcher.admission import AHEAD_SECONDS, LEAST_AHEAD, VAIN_REST_SECONDS
from bobrai.dispatcher.measuring import Measuring
from bobrai.dispatcher.relay import Relay
from bobrai.domain.task import OutcomeKind
from bobrai.settings import Settings
from bobrai.store import attempts, backlogs, submission, workers
from bobrai.store.pool import Database
from tests.integration.dispatcher.conftest import Broker
from tests.integration.store.builders import new_task, outcome, worker

MakeSettings = Callable[..., Settings]


class Scene:
    """A relay, somebody who measures, and a worker with fifty slots, all by the test's hand."""

    def __init__(self, settings: Settings, store: Database, broker: Broker) -> None:
        self.store, self.broker = store, broker
        self.relay = Relay(settings, store, broker)
        self.measuring = Measuring(settings, store, broker)
        self.me = 0

    async def limit(self, limits: dict[str, Any] | None) -> None:
        self.me = self.me or await worker(self.store)
        await self.store.fetch("UPDATE queues SET limits = $1", None if limits is None else json.dumps(limits))

    async def submit(self, key: str, count: int, **fields: Any) -> None:
        await submission.submit(self.store, [new_task(payload=json.dumps({"account": key}), **fields)] * count)

    async def relayed(self) -> None:
        """Do rounds until one says that there is nothing to do now."""
        await self.relay._refresh()
        for _ in range(50):
            pause = await self.relay.run_once()
            if pause > VAIN_REST_SECONDS:
                return
            await asyncio.sleep(pause)  # as it asks for
        raise AssertionError("the relay never rests")

    async def claimed(self) -> list[Any]:
        """Claim whatever was published."""
        hints, self.broker.published = self.broker.hints(), []
        return await attempts.claim(self.store, self.me, hints, may_be_limited=True)

    async def figures(self) -> tuple[int, int, int]:
        """Measure, and return what is due, held and running."""
        await self.store.fetch("UPDATE queues SET measured_at = NULL")
        await self.measuring.run_once()
        (row,) = await self.store.fetch("SELECT due, held, processing FROM queues")
        return row["due"], row["held"], row["processing"]


@pytest.fixture
def scene(settings_with: MakeSettings, store: Database, broker: Broker) -> Scene:
    return Scene(settings_with(measure_seconds=0.001), store, broker)


async def test_what_may_not_start_yet_is_held_and_counts_for_no_worker(scene: Scene, store: Database) -> None:
    await scene.limit({"concurrency": 3})
    await scene.submit("a", 100)
    await scene.relayed()
    assert await scene.figures() == (3, 97, 0)
    claims = await scene.claimed()
    assert await scene.figures() == (0, 97, 3)
    (backlog,) = await backlogs.every(store)
    assert backlog.tasks == 3
    await attempts.complete(store, scene.me, [outcome(claim, OutcomeKind.DONE) for claim in claims])
    assert await scene.figures() == (3, 94, 0), "three may start, and the relay has not looked yet"
    await scene.relayed()
    assert await scene.figures() == (3, 94, 0)


async def test_each_key_has_its_share_of_what_may_run(scene: Scene) -> None:
    await scene.limit({"per_key": {"key": "/account", "concurrency": 2}})
    for key, count in (("a", 50), ("b", 1), ("c", 5)):
        await scene.submit(key, count)
    await scene.relayed()
    assert await scene.figures() == (5, 51, 0)


async def test_what_only_waits_for_its_turn_is_due(scene: Scene) -> None:
    await scene.limit({"per_key": {"key": "/account"}})
    await scene.submit("a", 300)
    await scene.relayed()
    assert await scene.figures() == (300, 0, 0)


async def test_a_rate_lets_as_much_be_due_as_may_start_at_once(scene: Scene) -> None:
    await scene.limit({"rate": "1/h", "burst": 4})
    await scene.submit("a", 10)
    await scene.relayed()
    assert await scene.figures() == (4, 6, 0)


async def test_no_task_is_late_for_a_limit_that_holds_it_back(scene: Scene, store: Database) -> None:
    await scene.limit({"per_key": {"key": "/account", "concurrency": 1}})
    await scene.submit("a", 3)
    await scene.relayed()
    await scene.claimed()
    await store.fetch("UPDATE tasks SET run_at = run_at - interval '1 h'")
    await store.fetch("UPDATE held SET due_at = due_at - interval '1 h'")
    assert await scene.figures() == (0, 2, 1)
    assert await oldest(store) == 0
    await scene.submit("b", 1)  # it waits for the relay alone
    await store.fetch("UPDATE outbox SET due_at = due_at - interval '5 min'")
    assert await scene.figures() == (1, 2, 1)
    assert 290 < await oldest(store) < 400


async def oldest(store: Database) -> float:
    (row,) = await store.fetch("SELECT coalesce(extract(epoch FROM now() - oldest_due_at), 0)::float8 AS s FROM queues")
    return float(row["s"])


async def test_what_is_held_has_a_gauge(scene: Scene) -> None:
    await scene.limit({"concurrency": 1})
    await scene.submit("a", 5)
    await scene.relayed()
    await scene.figures()
    labels = {"queue": "default", "state": "held"}
    assert REGISTRY.get_sample_value("bobrai_queue_tasks", labels) == 4
    assert REGISTRY.get_sample_value("bobrai_queue_tasks", labels | {"state": "due"}) == 1


async def test_a_paused_queue_lets_nothing_through(scene: Scene, store: Database) -> None:
    await scene.limit({"concurrency": 3})
    await scene.submit("a", 10)
    await scene.relayed()
    await scene.claimed()
    await store.fetch("UPDATE queues SET paused = true")
    await store.fetch("UPDATE tasks SET status = 'done', finished_at = now() WHERE status = 'processing'")
    await scene.relayed()
    assert scene.broker.hints() == []
    await store.fetch("UPDATE queues SET paused = false")
    await scene.relayed()
    assert len(scene.broker.hints()) == 3


async def test_no_more_is_let_through_than_workers_can_use_soon(scene: Scene, store: Database) -> None:
    """What is decided late is decided by what is true then: an urgent task, or another key's turn."""
    await scene.limit({"per_key": {"key": "/account"}})
    await scene.submit("a", 500)
    await scene.relayed()
    assert len(scene.broker.hints()) == 50 + LEAST_AHEAD
    await workers.report_speeds(store, scene.me, {"default": 1000.0})
    await scene.relayed()
    assert len(scene.broker.hints()) == 50 + 1000 * AHEAD_SECONDS
