"""What has not started when it expires is cancelled and never starts; what has started once never expires."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from bobrai.dispatcher.deadlines import Deadlines
from bobrai.domain.message import Hint
from bobrai.domain.task import OutcomeKind
from bobrai.settings import Settings
from bobrai.store import attempts, tasks, workers
from bobrai.store.pool import Database
from bobrai.telemetry.logs import captured
from tests.integration.store.builders import (
    claimed,
    expired,
    outbox_rows,
    outcome,
    status,
    submitted,
    submitted_one,
    worker,
)
from tests.support.authors import SOMEBODY

MakeSettings = Callable[..., Settings]
TIMES = {"expires_seconds": 60.0, "deadline_seconds": 600.0}


async def seconds_pass(store: Database, seconds: float, *task_ids: int) -> None:
    """Let these tasks' times be so much nearer, or over."""
    await store.fetch(
        "UPDATE tasks SET expires_at = expires_at - make_interval(secs => $1), deadline_at = deadline_at"
        " - make_interval(secs => $1) WHERE id = ANY($2)",
        seconds,
        list(task_ids),
    )


@pytest.fixture
def deadlines(settings_with: MakeSettings, store: Database) -> Deadlines:
    return Deadlines(settings_with(), store)


async def test_what_has_not_started_when_it_expires_is_cancelled(deadlines: Deadlines, store: Database) -> None:
    late, delayed = await submitted(store, 2, queue="slow", expires_seconds=60.0)
    timely, without = await submitted_one(store, expires_seconds=600.0), await submitted_one(store)
    await store.fetch("UPDATE tasks SET run_at = now() + interval '1 h' WHERE id = $1", delayed)
    await seconds_pass(store, 61.0, late, delayed, timely)
    labels = {"queue": "slow", "type": "echo", "outcome": "cancelled"}
    before = REGISTRY.get_sample_value("bobrai_tasks_finished_total", labels) or 0.0
    with captured() as lines:
        await deadlines.run_once()
    assert {line["task_id"] for line in lines if line["event"] == "task.expired"} == {late, delayed}
    for task_id in (late, delayed):
        row = await tasks.get(store, task_id)
        (error,) = json.loads(row["errors"])
        assert (row["status"], row["attempt"], row["finished_at"] is None) == ("cancelled", 0, False)
        assert (error["reason"], error["attempt"], bool(error["at"])) == ("expired", 0, True)
    assert [row["task_id"] for row in await outbox_rows(store)] == [timely, without]
    assert REGISTRY.get_sample_value("bobrai_tasks_finished_total", labels) == before + 2


async def test_no_first_attempt_starts_after_the_expiry_however_late_the_dispatcher_is(store: Database) -> None:
    me, (late, timely) = await worker(store), await submitted(store, 2, expires_seconds=60.0)
    await seconds_pass(store, 61.0, late)
    claims = await attempts.claim(store, me, [Hint(late, 0), Hint(timely, 0)])
    assert [claim.task_id for claim in claims] == [timely]


@pytest.mark.parametrize("kind", [OutcomeKind.RETRY, OutcomeKind.SNOOZE, None], ids=["retried", "snoozed", "lost"])
async def test_what_has_started_does_not_expire(
    deadlines: Deadlines, store: Database, kind: OutcomeKind | None
) -> None:
    me, task_id = await worker(store), await submitted_one(store, max_attempts=2, expires_seconds=60.0)
    claim = await claimed(store, me, task_id)
    await seconds_pass(store, 61.0, task_id)
    await deadlines.run_once()
    assert await status(store, task_id) == ("processing", 1)
    if kind is None:
        await expired(store, me)
        await workers.take_back(store)
        me = await worker(store)
    else:
        assert await attempts.end(store, me, [outcome(claim, kind)]) == {task_id: "pending"}
    await deadlines.run_once()
    again = await claimed(store, me, task_id)
    assert again.attempt == 2
    # Nor does it when a shutdown gives the second start back: the first one was one.
    assert await attempts.end(store, me, [outcome(again, OutcomeKind.INTERRUPTED)]) == {task_id: "pending"}
    await deadlines.run_once()
    assert await status(store, task_id) == ("pending", 1)


async def test_a_first_start_that_a_shutdown_gave_back_was_none(deadlines: Deadlines, store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store, expires_seconds=60.0)
    given_back = outcome(await claimed(store, me, task_id), OutcomeKind.INTERRUPTED)
    assert await attempts.end(store, me, [given_back]) == {task_id: "pending"}
    await seconds_pass(store, 61.0, task_id)
    assert await attempts.claim(store, me, [Hint(task_id, 0)]) == []
    await deadlines.run_once()
    assert await status(store, task_id) == ("cancelled", 0)


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"expires_seconds": 50.0, "deadline_seconds": 55.0}, "expired"),
        ({"expires_seconds": 55.0, "deadline_seconds": 50.0}, "deadline"),
        ({"expires_seconds": 50.0, "deadline_seconds": 50.0}, "expired"),
        ({"expires_seconds": 600.0, "deadline_seconds": 50.0}, "deadline"),
        ({"expires_seconds": 50.0, "deadline_seconds": 600.0}, "expired"),
    ],
)
async def test_of_expiry_and_deadline_the_earlier_one_ends_what_waits(
    deadlines: Deadlines, store: Database, times: dict[str, Any], reason: str
) -> None:
    task_id = await submitted_one(store, **times)
    await seconds_pass(store, 60.0, task_id)
    await deadlines.run_once()
    row = await tasks.get(store, task_id)
    assert [error["reason"] for error in json.loads(row["errors"])] == [reason]
    assert row["status"] == ("cancelled" if reason == "expired" else "failed")


async def test_what_has_started_still_has_its_deadline(deadlines: Deadlines, store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store, **TIMES)
    await attempts.end(store, me, [outcome(await claimed(store, me, task_id), OutcomeKind.RETRY)])
    await seconds_pass(store, 601.0, task_id)
    await deadlines.run_once()
    row = await tasks.get(store, task_id)
    assert [error["reason"] for error in json.loads(row["errors"])] == ["error", "deadline"]
    assert row["status"] == "failed"


async def test_a_cancel_of_what_has_expired_changes_nothing_and_one_before_wins(
    deadlines: Deadlines, store: Database
) -> None:
    ended, wished = await submitted(store, 2, expires_seconds=60.0)
    await tasks.cancel(store, wished, by=SOMEBODY)
    await seconds_pass(store, 61.0, ended, wished)
    await deadlines.run_once()
    assert await tasks.cancel(store, ended, by=SOMEBODY) == "cancelled"
    reasons = [json.loads((await tasks.get(store, each))["errors"]) for each in (ended, wished)]
    assert [[error["reason"] for error in errors] for errors in reasons] == [["expired"], []]


async def test_a_replay_never_expires(deadlines: Deadlines, store: Database) -> None:
    task_id = await submitted_one(store, expires_seconds=60.0)
    await seconds_pass(store, 61.0, task_id)
    await deadlines.run_once()
    await tasks.replay(store, task_id, by=SOMEBODY)
    await deadlines.run_once()
    assert await status(store, task_id) == ("pending", 0)
    assert (await claimed(store, await worker(store), task_id)).attempt == 1
