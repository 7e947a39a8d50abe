"""Queues and types come to an end, and nothing that was accepted is lost by it."""

import asyncio

import pytest
from msgspec import UNSET

from bobrai.domain import limits
from bobrai.domain.task import OutcomeKind, TaskType
from bobrai.store import attempts, backlogs, outbox, queues, submission, task_types, workers
from bobrai.store.pool import Database
from bobrai.store.purging import Purge
from bobrai.store.queues import Wishes
from tests.integration.store.builders import (
    blocked,
    claimed,
    new_task,
    outbox_rows,
    outcome,
    relayed,
    status,
    submitted,
    submitted_one,
    worker,
)
from tests.support.authors import SOMEBODY
from tests.support.eventually import eventually

WEEK = 7 * 86_400.0


async def names(store: Database) -> set[str]:
    """The queues that anybody sees."""
    return {row["name"] for row in await queues.every(store)}


async def put(store: Database, name: str, *, paused: bool | None = None, limit: int | None = None) -> bool | None:
    """Make or change a queue; a limit is set when there is one."""
    wishes = Wishes(paused=paused, max_backlog=UNSET if limit is None else limit)
    return await queues.put(store, name, wishes, by=SOMEBODY)


async def age(store: Database, days: int) -> None:
    """Let all queues and types have been used for the last time so long ago."""
    past = f"now() - interval '{days} days'"
    await store.fetch(f"UPDATE queues SET used_at = {past}, created_at = {past}")
    await store.fetch(f"UPDATE task_types SET seen_at = {past}")


async def test_a_queue_that_is_put_is_made_once_and_then_changed(store: Database) -> None:
    assert await put(store, "media", paused=True, limit=7) is True
    assert await put(store, "media") is False
    (row,) = [row for row in await queues.every(store) if row["name"] == "media"]
    assert (row["paused"], row["max_backlog"]) == (True, 7)
    assert await put(store, "media", paused=False) is False
    assert (await queues.live(store))["media"] is False


async def test_no_queue_is_made_beyond_the_limit_and_those_there_can_be_changed(store: Database) -> None:
    await queues.ensure(store, [f"q{number}" for number in range(limits.MAX_QUEUES - 1)])
    assert await put(store, "one-more") is None
    assert await put(store, "q7", paused=True) is False
    assert await queues.remove(store, "q8", by=SOMEBODY) == (True, False, 0, 0)
    assert await put(store, "one-more") is True


async def test_a_removed_queue_is_gone_for_every_reader_at_once(store: Database) -> None:
    await submitted(store, 2, queue="media")
    await Purge(store, "media", by=SOMEBODY).cancel_waiting(limit=10)
    await queues.remove(store, "media", by=SOMEBODY)
    assert "media" not in await names(store) | (await queues.live(store)).keys()
    assert "media" not in {each.queue for each in await backlogs.every(store)}
    measured = await queues.measure(
        store, {"media": 1}, period_seconds=0.0, takeover_periods=0.0, waiting_period_seconds=0.0
    )
    assert [row["name"] for row in measured.rows] == ["default"]
    assert not await queues.change(store, "media", Wishes(paused=True), by=SOMEBODY)
    assert await queues.remove(store, "media", by=SOMEBODY) is None


async def test_nothing_is_published_from_a_removed_queue(store: Database) -> None:
    await queues.ensure(store, ["media"])
    await queues.remove(store, "media", by=SOMEBODY)
    await submission.submit(store, [new_task(queue="media")])
    assert await outbox.next_due(store) is None
    assert await relayed(store, queue="media") == []


async def test_what_is_used_is_not_removed_and_says_what_uses_it(store: Database) -> None:
    me = await worker(store, queues=("media", "default"))
    mine = await submitted_one(store, queue="media")
    assert await queues.remove(store, "media", by=SOMEBODY) == (False, True, 0, 1)
    await claimed(store, me, mine)
    assert await queues.remove(store, "media", by=SOMEBODY) == (False, False, 1, 1)
    assert "media" in await names(store)
    assert await queues.remove(store, "unknown", by=SOMEBODY) is None


async def test_a_queue_made_again_is_as_a_new_one(store: Database) -> None:
    await put(store, "media", paused=True, limit=1)
    await queues.remove(store, "media", by=SOMEBODY)
    await queues.ensure(store, ["media"])
    (row,) = [row for row in await queues.every(store) if row["name"] == "media"]
    assert (row["paused"], row["max_backlog"], row["measured_at"]) == (False, None, None)
    await age(store, 8)
    assert await queues.remove_idle(store, retention_seconds=WEEK) == ["media"], "and it is not kept any more"


async def test_making_queues_waits_for_nobody_who_measures_those_that_are_there(store: Database) -> None:
    await queues.ensure(store, ["media"])
    async with store.transaction() as transaction:
        await transaction.fetch("SELECT FROM queues FOR UPDATE")
        await asyncio.wait_for(queues.ensure(store, ["media", "media", "new"]), 5)
    assert await names(store) == {"default", "media", "new"}


async def test_a_task_that_came_after_the_removal_brings_its_queue_back(store: Database) -> None:
    """A process of the API may know a queue a little longer than it is there."""
    await queues.ensure(store, ["media", "other"])
    await queues.remove(store, "media", by=SOMEBODY)
    await submission.submit(store, [new_task(queue="media"), new_task(queue="never-made")])
    assert sorted(await queues.restore(store)) == ["media", "never-made"]
    assert await names(store) == {"default", "media", "never-made", "other"}
    assert [hint.queue for hint in await relayed(store, queue="media")] == ["media"]
    assert await queues.restore(store) == []


async def test_so_does_a_published_task_a_retry_and_a_worker(store: Database) -> None:
    await queues.ensure(store, ["a", "b", "c"])
    me = await worker(store)
    held = await submitted_one(store, queue="a")
    await relayed(store, queue="a")
    running = await claimed(store, me, await submitted_one(store, queue="b"))
    await relayed(store, queue="b")
    await store.fetch("UPDATE queues SET removed_at = now() WHERE name <> 'default'")
    await worker(store, queues=("c",))
    assert sorted(await queues.restore(store)) == ["a", "c"]
    await attempts.end(store, me, [outcome(running, OutcomeKind.RETRY)])
    assert await queues.restore(store) == ["b"]
    assert await status(store, held) == ("pending", 0)


async def test_a_removed_queue_in_which_a_task_waits_is_never_forgotten(store: Database) -> None:
    await queues.ensure(store, ["media"])
    await queues.remove(store, "media", by=SOMEBODY)
    await submission.submit(store, [new_task(queue="media")])
    assert await queues.removed(store, grace_seconds=-1.0, besides=[]) is None


async def test_a_queue_is_not_brought_back_while_it_is_deleted_in_the_broker(store: Database) -> None:
    """Or the deletion would take a message along that was published after it came back."""
    await queues.ensure(store, ["media"])
    await queues.remove(store, "media", by=SOMEBODY)
    async with store.transaction() as transaction:
        assert await queues.removed(transaction, grace_seconds=-1.0, besides=[]) == "media"
        await submission.submit(store, [new_task(queue="media")])
        restoring = asyncio.ensure_future(queues.restore(store))
        await eventually(lambda: blocked(store), message="the queue's return waits")
        assert not restoring.done()
        await queues.forget(transaction, "media")
    assert await restoring == ["media"]


async def test_only_idle_queues_that_tasks_made_go_by_themselves(store: Database) -> None:
    kept = ["put", "paused", "limited", "waits", "runs", "consumed", "used", "default"]
    await queues.ensure(store, ["idle", *kept])
    await put(store, "put")
    await queues.change(store, "paused", Wishes(paused=True), by=SOMEBODY)
    await queues.change(store, "limited", Wishes(max_backlog=5), by=SOMEBODY)
    await submitted(store, queue="waits", delay_seconds=WEEK)
    me = await worker(store)
    await claimed(store, me, await submitted_one(store, queue="runs"))
    await worker(store, queues=("consumed",))
    assert await queues.remove_idle(store, retention_seconds=WEEK) == [], "they are new"
    await age(store, 8)
    await queues.touch(store, ["used"])
    assert await queues.remove_idle(store, retention_seconds=WEEK) == ["idle"]
    assert await names(store) == set(kept)


async def test_what_waits_is_cancelled_in_batches_and_what_runs_is_asked_to_stop(store: Database) -> None:
    me = await worker(store)
    ids = await submitted(store, 5, queue="media")
    other = await submitted_one(store)
    claim = await claimed(store, me, ids[0])
    purge = Purge(store, "media", by=SOMEBODY)
    assert [await purge.cancel_waiting(limit=3) for _ in range(3)] == [{"echo": 3}, {"echo": 1}, {}]
    assert [await purge.ask_running(limit=3) for _ in range(2)] == [1, 0]
    assert [(await status(store, each))[0] for each in ids] == ["processing"] + ["cancelled"] * 4
    assert [row["task_id"] for row in await outbox_rows(store) if row["task_id"] not in ids] == [other]
    assert await workers.heartbeat(store, me, lease_seconds=60.0, running=1) == [claim.task_id]


async def test_a_type_is_forgotten_when_nobody_has_it_and_nothing_names_it(store: Database) -> None:
    await task_types.announce(store, [TaskType(name=name) for name in ("gone", "had", "waits", "runs")])
    await workers.register(
        store, queues=["default"], host="h", concurrency=1, lease_seconds=60.0, types=["had", "unannounced"]
    )
    await submitted(store, type="waits", delay_seconds=WEEK)
    me = await workers.register(store, queues=["default"], host="h", concurrency=1, lease_seconds=60.0, types=[])
    await claimed(store, me, await submitted_one(store, type="runs"))
    assert await task_types.forget(store, retention_seconds=WEEK) == []
    await age(store, 8)
    await task_types.touch(store)
    assert await task_types.forget(store, retention_seconds=WEEK) == ["gone"]
    assert {kind.name for kind in await task_types.every(store)} == {"had", "waits", "runs"}


async def test_a_worker_of_the_release_before_may_have_every_type(store: Database) -> None:
    await task_types.announce(store, [TaskType(name="echo")])
    await worker(store)
    await age(store, 400)
    await task_types.touch(store)
    await store.fetch("DELETE FROM workers")
    assert await task_types.forget(store, retention_seconds=WEEK) == []


@pytest.mark.parametrize(("types", "known"), [(None, None), ([], frozenset()), (["a", "b"], frozenset("ab"))])
async def test_a_worker_says_which_types_it_has(
    store: Database, types: list[str] | None, known: frozenset[str] | None
) -> None:
    await workers.register(store, queues=["q"], host="h", concurrency=1, lease_seconds=60.0, types=types)
    (living,) = await workers.live(store)
    assert living.types == known
    assert living.may_have("a") is (known is None or "a" in known)
