"""Why a task is where it is, for each stage that it can be in."""

from typing import Any

import pytest

from bobrai.api.explaining import CAUSES
from bobrai.domain.task import OutcomeKind
from bobrai.store import admissions, attempts, queues, tasks, workers
from bobrai.store.pool import Database
from bobrai.store.queues import Wishes
from tests.integration.api.conftest import Api
from tests.integration.store.builders import claimed, expired, outcome, relayed, submitted_one, worker
from tests.support.authors import SOMEBODY

FINISH = "UPDATE tasks SET status = 'done', finished_at = now(), result = '1' WHERE id = $1"


async def explained(api: Api, task_id: int) -> dict[str, Any]:
    answer = await api.get(f"/api/v1/tasks/{task_id}/explain")
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    assert said["task_id"] == task_id
    assert said["cause"] in CAUSES
    assert answer.headers["cache-control"] == "no-store"
    return said


@pytest.fixture
async def living(store: Database) -> int:
    """A worker of the default queue that has the type."""
    return await workers.register(
        store, queues=["default"], host="pod-1", concurrency=5, lease_seconds=60.0, types=["echo"]
    )


async def test_a_delayed_task_says_when_it_may_start(api: Api, store: Database) -> None:
    task_id = await submitted_one(store, delay_seconds=600.0)
    said = await explained(api, task_id)
    row = await tasks.get(store, task_id)
    assert said["cause"] == "delayed"
    assert said["earliest_start_at"].startswith(f"{row['run_at']:%Y-%m-%dT%H:%M:%S}")
    assert f"{row['run_at']:%Y-%m-%d %H:%M:%S} UTC" in said["summary"]


async def test_between_attempts_it_says_what_went_wrong(api: Api, store: Database) -> None:
    me = await worker(store)
    claim = await claimed(store, me, await submitted_one(store))
    await attempts.end(store, me, [outcome(claim, OutcomeKind.RETRY, delay_seconds=60.0)])
    said = await explained(api, claim.task_id)
    assert (said["cause"], said["facts"]["last_error"]) == ("between_attempts", "ValueError: no")
    assert said["earliest_start_at"] is not None


async def test_a_paused_queue_is_named(api: Api, store: Database, living: int) -> None:
    task_id = await submitted_one(store)
    await queues.put(store, "default", Wishes(paused=True), by=SOMEBODY)
    assert (await explained(api, task_id))["cause"] == "paused_queue"


async def test_a_lack_of_workers_is_named(api: Api, store: Database) -> None:
    task_id = await submitted_one(store)
    assert (await explained(api, task_id))["cause"] == "no_worker_for_queue"
    await workers.register(store, queues=["default"], host="h", concurrency=1, lease_seconds=60.0, types=["other"])
    said = await explained(api, task_id)
    assert said["cause"] == "no_worker_for_type"
    assert "'echo'" in said["summary"]


async def test_in_the_backlog_it_says_how_many_go_first(api: Api, store: Database, living: int) -> None:
    first, urgent, last = [await submitted_one(store, priority=priority) for priority in (0, 5, 0)]
    await store.fetch("UPDATE queues SET measured_at = now()")
    ahead = {each: (await explained(api, each))["facts"]["ahead"] for each in (first, urgent, last)}
    assert ahead == {urgent: 0, first: 1, last: 2}
    assert (await explained(api, last))["cause"] == "backlog"


async def test_without_a_dispatcher_it_says_so(api: Api, store: Database, living: int) -> None:
    task_id = await submitted_one(store)
    await store.fetch("UPDATE tasks SET run_at = now() - interval '1 min'")
    await store.fetch("UPDATE queues SET measured_at = now() - interval '1 min'")
    assert (await explained(api, task_id))["cause"] == "no_dispatcher"


async def test_what_is_published_waits_for_a_slot(api: Api, store: Database, living: int) -> None:
    task_id = await submitted_one(store)
    await relayed(store)
    assert (await explained(api, task_id))["cause"] == "published"


async def test_a_limit_that_holds_it_back_is_shown(api: Api, store: Database, living: int) -> None:
    await queues.put(store, "default", Wishes(), by=SOMEBODY)
    await store.fetch("""UPDATE queues SET limits = '{"concurrency": 1}' WHERE name = 'default'""")
    task_id = await submitted_one(store)
    await admissions.sort_due(store, ["default"], limit=10)
    said = await explained(api, task_id)
    assert (said["cause"], said["facts"]["queue_limits"]) == ("held_by_limit", {"concurrency": 1})


async def test_a_running_task_says_where(api: Api, store: Database, living: int) -> None:
    claim = await claimed(store, living, await submitted_one(store))
    said = await explained(api, claim.task_id)
    assert (said["cause"], said["facts"]["worker"], said["facts"]["worker_id"]) == ("running", "pod-1", living)
    await tasks.cancel(store, claim.task_id, by=SOMEBODY)
    assert (await explained(api, claim.task_id))["cause"] == "cancelling"
    await expired(store, living)
    assert (await explained(api, claim.task_id))["cause"] == "lost"


async def test_what_has_ended_says_how(api: Api, store: Database, living: int) -> None:
    done, failed = [await claimed(store, living, await submitted_one(store)) for _ in range(2)]
    await store.fetch(FINISH, done.task_id)
    await attempts.end(store, living, [outcome(failed, OutcomeKind.FAILED)])
    cancelled = await submitted_one(store)
    await tasks.cancel(store, cancelled, by=SOMEBODY)
    causes = [(await explained(api, each))["cause"] for each in (done.task_id, failed.task_id, cancelled)]
    assert causes == ["done", "failed", "cancelled"]
    assert "ValueError: no" in (await explained(api, failed.task_id))["summary"]


async def test_an_unknown_task_is_not_found(api: Api) -> None:
    assert (await api.get("/api/v1/tasks/999/explain")).status_code == 404
    assert (await api.get("/api/v1/tasks/x/explain")).status_code == 404
