"""Leases belong to workers: nothing is taken back because it is old, only because its worker is gone."""

import asyncio
import json

import asyncpg
import pytest

from bobrai.domain import limits
from bobrai.domain.errors import WorkerGone
from bobrai.domain.message import Hint
from bobrai.domain.task import OutcomeKind
from bobrai.store import attempts, queries, tasks, workers
from bobrai.store.pool import Database
from tests.integration.store.builders import (
    blocked,
    claimed,
    expired,
    outbox_rows,
    outcome,
    relayed,
    status,
    submitted,
    submitted_one,
    worker,
)
from tests.integration.store.history import History
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually


async def test_a_lost_workers_tasks_are_taken_back(store: Database, history: History) -> None:
    lost, living = await worker(store), await worker(store)
    ids = await submitted(store, 3)
    await relayed(store)
    mine = [await claimed(store, lost, task_id) for task_id in ids[:2]]
    await claimed(store, living, ids[2])
    await expired(store, lost)
    taken = await workers.take_back(store)
    assert {(row["id"], row["status"]) for row in taken} == {(claim.task_id, "pending") for claim in mine}
    assert {row["request_id"] for row in taken} == {""}
    assert [row["task_id"] for row in await outbox_rows(store)] == ids[:2]
    assert await status(store, ids[2]) == ("processing", 1)
    assert await workers.take_back(store) == []


async def test_a_loss_is_no_attempt(store: Database, history: History) -> None:
    task_id = await submitted_one(store, max_attempts=1)
    for losses in range(1, 30):
        me = await worker(store)
        claim = await claimed(store, me, task_id)
        assert (claim.attempt, claim.max_attempts, claim.failures, claim.losses) == (losses, losses, 0, losses - 1)
        await expired(store, me)
        (row,) = await workers.take_back(store)
        assert (row["status"], row["losses"]) == ("pending", losses)
    last = await worker(store)
    claim = await claimed(store, last, task_id)
    assert await attempts.complete(store, last, [outcome(claim, OutcomeKind.DONE)])
    row = await tasks.get(store, task_id)
    assert (row["status"], row["losses"]) == ("done", 29)
    assert {error["reason"] for error in json.loads(row["errors"])} == {"worker_lost"}


async def test_attempts_that_failed_count_on_after_a_loss(store: Database, history: History) -> None:
    """One failure, one loss, one failure: of two attempts that was the last one."""
    task_id = await submitted_one(store, max_attempts=2)
    me = await worker(store)
    await attempts.end(store, me, [outcome(await claimed(store, me, task_id), OutcomeKind.RETRY)])
    assert (await claimed(store, me, task_id)).failures == 1
    await expired(store, me)
    await workers.take_back(store)
    other = await worker(store)
    claim = await claimed(store, other, task_id)
    assert (claim.attempt, claim.max_attempts, claim.failures) == (3, 3, 1)
    assert await attempts.end(store, other, [outcome(claim, OutcomeKind.RETRY)]) == {task_id: "failed"}


async def test_a_task_that_is_lost_again_waits_longer_each_time(store: Database) -> None:
    task_id = await submitted_one(store)
    waits = []
    for _ in range(6):
        me = await worker(store)
        await claimed(store, me, task_id)
        await expired(store, me)
        await workers.take_back(store)
        (row,) = await store.fetch("SELECT extract(epoch FROM due_at - now())::float8 AS wait FROM outbox")
        waits.append(row["wait"])
    assert waits == pytest.approx([0, 1, 3, 7, 10, 10], abs=0.5)


async def test_a_task_that_is_lost_without_end_ends_failed(store: Database, history: History) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    await claimed(store, me, task_id)
    await store.fetch("UPDATE tasks SET losses = $1", limits.MAX_LOSSES - 1)
    await expired(store, me)
    await workers.take_back(store)
    row = await tasks.get(store, task_id)
    assert (row["status"], row["losses"], row["attempt"]) == ("failed", limits.MAX_LOSSES, 1)
    assert json.loads(row["errors"])[-1]["reason"] == "worker_lost"
    assert row["finished_at"] is not None


async def test_a_replay_gives_all_attempts_and_keeps_the_suspicion(store: Database, history: History) -> None:
    me, task_id = await worker(store), await submitted_one(store, max_attempts=2)
    await claimed(store, me, task_id)
    await store.fetch("UPDATE tasks SET losses = 7")
    await expired(store, me)
    await workers.take_back(store)
    other = await worker(store)
    await attempts.end(store, other, [outcome(await claimed(store, other, task_id), OutcomeKind.FAILED)])
    await tasks.replay(store, task_id, by=SOMEBODY)
    claim = await claimed(store, other, task_id)
    assert (claim.attempt, claim.max_attempts, claim.failures, claim.losses) == (3, 4, 0, 1)


async def test_one_lost_task_that_cannot_be_written_is_left_out_by_name(store: Database) -> None:
    me, (one, two) = await worker(store), await submitted(store, 2)
    for task_id in (one, two):
        await claimed(store, me, task_id)
    await expired(store, me)
    assert await workers.lost_tasks(store, [one]) == [two]
    assert [row["id"] for row in await workers.take_back(store, only=[two])] == [two]
    assert await workers.lost_tasks(store, []) == [one]


async def test_a_wish_to_cancel_wins_when_the_worker_is_lost(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    await claimed(store, me, task_id)
    await tasks.cancel(store, task_id, by=SOMEBODY)
    await expired(store, me)
    await workers.take_back(store)
    assert await status(store, task_id) == ("cancelled", 1)


async def test_a_heartbeat_keeps_the_lease_and_brings_the_cancels(store: Database) -> None:
    me, other = await worker(store, lease_seconds=0.001), await worker(store)
    wished, alone, elsewhere = await submitted(store, 3)
    await claimed(store, me, wished)
    await claimed(store, me, alone)
    await claimed(store, other, elsewhere)
    for task_id in (wished, elsewhere):
        await tasks.cancel(store, task_id, by=SOMEBODY)
    assert await workers.heartbeat(store, me, lease_seconds=600.0, running=2) == [wished]
    assert await workers.expire(store, restart_grace_seconds=0.0) == []
    (living,) = [each for each in await workers.live(store) if each.id == me]
    assert (living.running, living.concurrency, living.queues) == (2, 50, ("default",))


async def test_a_heartbeat_after_the_lease_was_removed_says_so(store: Database) -> None:
    me = await worker(store)
    await expired(store, me)
    with pytest.raises(WorkerGone):
        await workers.heartbeat(store, me, lease_seconds=600.0, running=0)


async def test_a_lease_that_ran_out_unnoticed_can_still_be_renewed(store: Database) -> None:
    me = await worker(store)
    await store.fetch("UPDATE workers SET expires_at = now() - interval '1 s'")
    assert await workers.live(store) == []
    assert await workers.heartbeat(store, me, lease_seconds=600.0, running=0) == []
    assert await workers.expire(store, restart_grace_seconds=0.0) == []


async def test_nobody_is_lost_within_the_grace_after_a_restart_of_the_database(store: Database) -> None:
    await worker(store, lease_seconds=0.001)
    assert await workers.expire(store, restart_grace_seconds=86_400.0) == []
    assert len(await eventually(lambda: workers.expire(store, restart_grace_seconds=0.0))) == 1


async def test_what_a_worker_still_held_at_its_clean_end_is_taken_back(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    await claimed(store, me, task_id)
    await workers.unregister(store, me)
    assert [row["id"] for row in await workers.take_back(store)] == [task_id]


async def test_nothing_is_taken_back_because_it_is_old(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    await claimed(store, me, task_id)
    await store.fetch(
        "UPDATE tasks SET started_at = now() - interval '10 years', updated_at = now() - interval '10 years'"
    )
    assert await workers.expire(store, restart_grace_seconds=0.0) == []
    assert await workers.take_back(store) == []


async def test_many_tasks_are_taken_back_in_batches(store: Database) -> None:
    me, ids = await worker(store), await submitted(store, 25)
    await attempts.claim(store, me, [Hint(task_id, 0) for task_id in ids])
    await expired(store, me)
    assert [len(await workers.take_back(store, limit=10)) for _ in range(4)] == [10, 10, 5, 0]


async def test_two_reapers_take_each_task_back_once(store: Database, history: History) -> None:
    me, ids = await worker(store), await submitted(store, 100)
    await attempts.claim(store, me, [Hint(task_id, 0) for task_id in ids])
    await expired(store, me)
    taken = await asyncio.gather(*(workers.take_back(store, limit=60) for _ in range(4)))
    rest = await workers.take_back(store)
    assert sorted(row["id"] for batch in (*taken, rest) for row in batch) == ids


async def test_a_worker_that_is_claiming_cannot_expire(store: Database, database: OwnDatabase) -> None:
    """The claim holds its worker's row, so the reaper passes over it: the tasks it gets always have an owner."""
    me, task_id = await worker(store, lease_seconds=0.001), await submitted_one(store)
    async with database.connect() as connection:
        claiming = connection.transaction()
        await claiming.start()
        await attempts.claim(_as_executor(connection), me, [Hint(task_id, 0)])
        assert await workers.expire(store, restart_grace_seconds=0.0) == []
        await claiming.commit()
    assert [row["id"] for row in await workers.expire(store, restart_grace_seconds=0.0)] == [me]
    assert [row["id"] for row in await workers.take_back(store)] == [task_id]


async def test_a_claim_that_waited_for_the_reaper_gets_nothing(store: Database, database: OwnDatabase) -> None:
    me, task_id = await worker(store, lease_seconds=0.001), await submitted_one(store)
    async with database.connect() as connection:
        expiring = connection.transaction()
        await expiring.start()
        assert [row["id"] for row in await workers.expire(_as_executor(connection), restart_grace_seconds=0.0)] == [me]
        claim = asyncio.ensure_future(attempts.claim(store, me, [Hint(task_id, 0)]))
        await eventually(lambda: blocked(store))
        await expiring.commit()
    with pytest.raises(WorkerGone):
        await claim
    assert await status(store, task_id) == ("pending", 0)


async def test_claims_and_expiries_in_any_order_leave_no_task_with_a_gone_worker(store: Database) -> None:
    """After every round, each processing task has a worker's row, or take_back finds it."""
    ids = await submitted(store, 60)
    for _ in range(30):
        crew = [await worker(store, lease_seconds=0.0001) for _ in range(3)]
        attempt = {row["id"]: row["attempt"] for row in (await tasks.read(store, ids)).values()}
        hints = [Hint(task_id, attempt[task_id]) for task_id in ids]
        await asyncio.gather(
            *(attempts.claim(store, me, hints[number::3]) for number, me in enumerate(crew)),
            *(workers.expire(store, restart_grace_seconds=0.0) for _ in range(3)),
            workers.take_back(store),
            return_exceptions=True,
        )
        await workers.expire(store, restart_grace_seconds=0.0)
        await workers.take_back(store)
        assert await store.fetch("SELECT id FROM tasks WHERE status = 'processing'") == []
        await store.fetch("UPDATE tasks SET max_attempts = attempt + 3 WHERE status = 'pending'")


async def test_the_ids_of_workers_are_never_used_again(store: Database) -> None:
    seen = set()
    for _ in range(3):
        me = await worker(store)
        assert me not in seen
        seen.add(me)
        await workers.unregister(store, me)


async def test_only_the_attempt_of_the_lost_worker_is_taken_back(store: Database) -> None:
    """The reaper names workers, and between its two statements a task may have gone to a living one."""
    lost, living = await worker(store), await worker(store)
    task_id = await submitted_one(store)
    claim = await claimed(store, lost, task_id)
    lost_ids = [lost]
    await attempts.end(store, lost, [outcome(claim, OutcomeKind.INTERRUPTED)])
    await claimed(store, living, task_id)
    assert await store.fetch(queries.statement("take_back"), lost_ids, 100, 20, 1000, None) == []
    assert await status(store, task_id) == ("processing", 1)


class _Executor:
    def __init__(self, connection: asyncpg.Connection) -> None:
        self.fetch = connection.fetch


def _as_executor(connection: asyncpg.Connection) -> _Executor:
    return _Executor(connection)
