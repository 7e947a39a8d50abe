"""A retry policy's time bounds failed attempts by the database's clock, from the first start of their set."""

from typing import Any

import pytest

from bobrai.domain.retry import Retry
from bobrai.domain.task import OutcomeKind
from bobrai.store import attempts, tasks, workers
from bobrai.store.pool import Database
from bobrai.store.records import retry_text, retry_value
from tests.integration.store.builders import claimed, expired, outbox_rows, outcome, status, submitted_one, worker
from tests.integration.store.history import History
from tests.support.authors import SOMEBODY

FOR_A_MINUTE = Retry(retry_for_seconds=60)
RETRY, SNOOZE, INTERRUPTED = OutcomeKind.RETRY, OutcomeKind.SNOOZE, OutcomeKind.INTERRUPTED


async def started(store: Database, task_id: int, me: int, *, seconds_ago: float = 0.0) -> Any:
    """Claim the attempt that waits now, as if that had been so many seconds ago."""
    claim = await claimed(store, me, task_id)
    await store.fetch("UPDATE tasks SET started_at = started_at - make_interval(secs => $1::float8)", seconds_ago)
    return claim


async def ended(store: Database, me: int, claim: Any, kind: OutcomeKind, delay_seconds: float = 0.0) -> str:
    """End an attempt; returns the task's status."""
    return (await attempts.end(store, me, [outcome(claim, kind, delay_seconds=delay_seconds)]))[claim.task_id]


@pytest.mark.parametrize("kind", [RETRY, SNOOZE])
async def test_the_attempt_before_one_that_would_start_too_late_is_the_last(
    store: Database, history: History, kind: OutcomeKind
) -> None:
    me, task_id = await worker(store), await submitted_one(store, retry=FOR_A_MINUTE)
    assert await ended(store, me, await started(store, task_id, me, seconds_ago=50), kind) == "pending"
    assert await ended(store, me, await started(store, task_id, me), kind, 5) == "pending"
    last = await started(store, task_id, me)
    await store.fetch("DELETE FROM outbox")
    assert await ended(store, me, last, kind, 15) == "failed", "15 s from now are 65 s after the first start"
    row = await tasks.get(store, task_id)
    assert (row["attempt"], row["finished_at"] is None) == (3, False)
    assert '"message": "no"' in row["errors"]
    assert await outbox_rows(store) == []
    assert await attempts.settled(store, me, [outcome(last, kind)]) == {task_id: "failed"}


async def test_one_attempt_that_takes_longer_than_the_time_is_the_last(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store, retry=FOR_A_MINUTE)
    assert await ended(store, me, await started(store, task_id, me, seconds_ago=61), RETRY) == "failed"


async def test_a_number_of_attempts_bounds_beside_the_time(store: Database) -> None:
    policy = Retry(retry_for_seconds=60, max_attempts=2)
    me, task_id = await worker(store), await submitted_one(store, retry=policy)
    assert await ended(store, me, await started(store, task_id, me), RETRY) == "pending"
    assert await ended(store, me, await started(store, task_id, me), RETRY) == "failed"


async def test_a_shutdown_ends_nothing_and_its_start_does_not_count(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store, retry=FOR_A_MINUTE)
    assert await ended(store, me, await started(store, task_id, me, seconds_ago=100), INTERRUPTED) == "pending"
    assert await ended(store, me, await started(store, task_id, me), RETRY) == "pending"
    assert await ended(store, me, await started(store, task_id, me, seconds_ago=100), INTERRUPTED) == "pending"
    assert await ended(store, me, await started(store, task_id, me), RETRY) == "pending"


async def test_a_loss_ends_nothing_but_the_time_goes_on(store: Database) -> None:
    lost, task_id = await worker(store), await submitted_one(store, retry=FOR_A_MINUTE)
    await started(store, task_id, lost, seconds_ago=100)
    await expired(store, lost)
    assert [row["status"] for row in await workers.take_back(store)] == ["pending"]
    me = await worker(store)
    assert await ended(store, me, await started(store, task_id, me), RETRY) == "failed"


async def test_a_replay_gives_the_whole_time_again(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store, retry=FOR_A_MINUTE)
    assert await ended(store, me, await started(store, task_id, me, seconds_ago=30), RETRY) == "pending"
    assert await ended(store, me, await started(store, task_id, me), RETRY, 31) == "failed"
    await tasks.replay(store, task_id, by=SOMEBODY)
    assert await ended(store, me, await started(store, task_id, me), RETRY, 31) == "pending"
    assert await status(store, task_id) == ("pending", 3)


def test_rows_say_nothing_of_a_time_that_a_policy_does_not_have() -> None:
    """What a release before wrote is read, and what it does not know it need not read."""
    assert "retry_for_seconds" not in retry_text(Retry())
    assert retry_value("{}") == Retry()
    for policy in (Retry(), FOR_A_MINUTE, Retry(retry_for_seconds=1, max_attempts=7)):
        assert retry_value(retry_text(policy)) == policy
    assert retry_value('{"max_attempts": 4, "of_a_later_release": 1}') == Retry(max_attempts=4)
