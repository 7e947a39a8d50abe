"""One claim per attempt, and every write after it is fenced by the attempt number and the worker's id."""

import asyncio
import re
from datetime import datetime

import pytest

from bobrai.domain import limits
from bobrai.domain.errors import WorkerGone
from bobrai.domain.message import Hint
from bobrai.domain.task import AttemptError, Outcome, OutcomeKind
from bobrai.store import attempts, outbox, tasks, workers
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
from tests.integration.store.conftest import opened
from tests.integration.store.history import History
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually


async def test_a_claim_shows_what_the_handler_needs(store: Database) -> None:
    task_id = await submitted_one(store, payload='{"a": [1, "ü"]}', priority=7, timeout_seconds=5.0, request_id="r1")
    claim = await claimed(store, await worker(store), task_id)
    assert (claim.task_id, claim.attempt, claim.type, claim.queue, claim.priority) == (task_id, 1, "echo", "default", 7)
    assert (claim.payload, claim.timeout_seconds, claim.request_id) == ('{"a": [1, "ü"]}', 5.0, "r1")
    assert (claim.failures, claim.max_attempts, claim.retry.max_attempts) == (0, 3, 3)
    assert 0.0 <= claim.wait_seconds <= claim.age_seconds < 60.0


async def test_doubled_hints_claim_once(store: Database, history: History) -> None:
    """Within one message, and by twenty messages at once over several workers."""
    ids = await submitted(store, 50)
    crew = [await worker(store) for _ in range(4)]
    hints = [Hint(task_id, 0) for task_id in ids]
    claims = await asyncio.gather(
        *(attempts.claim(store, crew[number % 4], [*hints, *reversed(hints)]) for number in range(20))
    )
    assert sorted(claim.task_id for batch in claims for claim in batch) == ids
    assert len(await history.changes()) == 50


@pytest.mark.parametrize("attempt", [1, 2, 7])
async def test_a_hint_for_another_attempt_is_stale(store: Database, attempt: int) -> None:
    task_id = await submitted_one(store)
    assert await attempts.claim(store, await worker(store), [Hint(task_id, attempt)]) == []
    assert await status(store, task_id) == ("pending", 0)


async def test_a_hint_for_no_task_at_all_is_stale(store: Database) -> None:
    assert await attempts.claim(store, await worker(store), [Hint(10**12, 0)]) == []


async def test_a_claim_whose_answer_was_lost_can_be_asked_for(store: Database) -> None:
    me, other = await worker(store), await worker(store)
    mine, theirs, ended, waiting = await submitted(store, 4)
    claim = await claimed(store, me, mine)
    await claimed(store, other, theirs)
    await attempts.complete(store, me, [outcome(await claimed(store, me, ended), OutcomeKind.DONE)])
    hints = [Hint(task_id, 0) for task_id in (mine, theirs, ended, waiting)]
    (found,) = await attempts.claimed(store, me, hints)
    assert (found.task_id, found.attempt, found.payload) == (claim.task_id, claim.attempt, claim.payload)
    assert await attempts.claimed(store, me, [Hint(mine, 1)]) == []


async def test_a_worker_without_a_row_claims_nothing(store: Database) -> None:
    task_id = await submitted_one(store)
    with pytest.raises(WorkerGone):
        await attempts.claim(store, 10**9, [Hint(task_id, 0)])
    assert await status(store, task_id) == ("pending", 0)


@pytest.mark.parametrize("kind", list(OutcomeKind))
async def test_late_completion_is_fenced(store: Database, history: History, kind: OutcomeKind) -> None:
    """A worker frozen past its lease comes back while the second attempt runs, and again when that one is done."""
    task_id = await submitted_one(store)
    frozen, second = await worker(store), await worker(store)
    late = outcome(
        await claimed(store, frozen, task_id), kind, **({"result": '"late"'} if kind is OutcomeKind.DONE else {})
    )
    await expired(store, frozen)
    await workers.take_back(store)
    for _ in range(2):
        assert await _write(store, frozen, late) == set()
        if await status(store, task_id) == ("pending", 1):
            claim = await claimed(store, second, task_id)
            assert await _write(store, frozen, late) == set()
            assert await attempts.complete(store, second, [outcome(claim, OutcomeKind.DONE)]) == {task_id}
    row = await tasks.get(store, task_id)
    assert (row["status"], row["attempt"], row["result"]) == ("done", 2, '"ok"')
    assert await history.statuses(task_id) == ["processing", "pending", "processing", "done"]


async def _write(store: Database, worker_id: int, late: Outcome) -> set[int]:
    if late.kind is OutcomeKind.DONE:
        return await attempts.complete(store, worker_id, [late])
    return set(await attempts.end(store, worker_id, [late]))


async def test_the_right_attempt_from_another_worker_is_fenced(store: Database) -> None:
    """An interrupted attempt is given back, so its number can run again elsewhere: the number alone is no fence."""
    task_id = await submitted_one(store)
    first, second = await worker(store), await worker(store)
    old = await claimed(store, first, task_id)
    await attempts.end(store, first, [outcome(old, OutcomeKind.INTERRUPTED)])
    assert (await claimed(store, second, task_id)).attempt == old.attempt
    assert await attempts.complete(store, first, [outcome(old, OutcomeKind.DONE)]) == set()
    assert await attempts.end(store, first, [outcome(old, OutcomeKind.FAILED)]) == {}
    assert await status(store, task_id) == ("processing", 1)


async def test_an_outcome_is_written_once(store: Database, history: History) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    done = outcome(await claimed(store, me, task_id), OutcomeKind.DONE)
    answers = await asyncio.gather(*(attempts.complete(store, me, [done]) for _ in range(8)))
    assert sorted(map(len, answers)) == [0] * 7 + [1]
    assert await attempts.settled(store, me, [done]) == {task_id: "done"}
    assert await history.statuses(task_id) == ["processing", "done"]


async def test_settled_tells_an_outcome_that_was_written_from_one_that_was_not(store: Database) -> None:
    me = await worker(store)
    mine, failed, running = [await claimed(store, me, task_id) for task_id in await submitted(store, 3)]
    await attempts.complete(store, me, [outcome(mine, OutcomeKind.DONE)])
    await attempts.end(store, me, [outcome(failed, OutcomeKind.FAILED)])
    asked = [outcome(claim, OutcomeKind.DONE) for claim in (mine, failed, running)]
    assert await attempts.settled(store, me, asked) == {mine.task_id: "done", running.task_id: "processing"}
    assert await attempts.settled(store, await worker(store), asked) == {}


@pytest.mark.parametrize("kind", list(OutcomeKind))
async def test_settled_knows_every_kind_of_end_that_was_written(store: Database, kind: OutcomeKind) -> None:
    me, [task_id, wished] = await worker(store), await submitted(store, 2)
    ends = [outcome(await claimed(store, me, each), kind) for each in (task_id, wished)]
    await tasks.cancel(store, wished, by=SOMEBODY)
    assert await attempts.settled(store, me, ends) == {task_id: "processing", wished: "processing"}
    statuses = {each.task_id: kind.value for each in ends}
    if kind is OutcomeKind.DONE:
        await attempts.complete(store, me, ends)
    else:
        statuses = await attempts.end(store, me, ends)
    assert await attempts.settled(store, me, ends) == statuses


@pytest.mark.parametrize("kind", list(OutcomeKind))
async def test_settled_does_not_take_a_lost_claim_for_its_own_write(store: Database, kind: OutcomeKind) -> None:
    me, other = await worker(store), await worker(store)
    [again, last] = await submitted_one(store), await submitted_one(store)
    ends = [outcome(await claimed(store, me, each), kind) for each in (again, last)]
    await store.fetch("UPDATE tasks SET losses = $1 WHERE id = $2", limits.MAX_LOSSES - 1, last)
    await workers.unregister(store, me)
    await workers.take_back(store)
    assert [await status(store, each) for each in (again, last)] == [("pending", 1), ("failed", 1)]
    assert await attempts.settled(store, me, ends) == {}
    await claimed(store, other, again)
    assert await attempts.settled(store, me, ends) == {}


async def test_settled_waits_for_a_commit_that_is_under_way(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    done = outcome(await claimed(store, me, task_id), OutcomeKind.DONE)
    async with store.transaction() as connection:
        await attempts.complete(connection, me, [done])
        asked = asyncio.create_task(attempts.settled(store, me, [done]))
        await eventually(lambda: blocked(store))
    assert await asked == {task_id: "done"}


async def test_a_retry_waits_for_its_delay_and_keeps_the_error(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    await relayed(store)
    claim = await claimed(store, me, task_id)
    assert await attempts.end(store, me, [outcome(claim, OutcomeKind.RETRY, delay_seconds=60.0)]) == {
        task_id: "pending"
    }
    row = await tasks.get(store, task_id)
    assert (row["status"], row["attempt"], row["finished_at"]) == ("pending", 1, None)
    assert 59.0 < (row["run_at"] - row["updated_at"]).total_seconds() < 61.0
    assert '"attempt": 1' in row["errors"]
    assert '"message": "no"' in row["errors"]
    assert await relayed(store) == []
    (waiting,) = await outbox_rows(store)
    assert (waiting["task_id"], waiting["attempt"], waiting["due_at"]) == (task_id, 1, row["run_at"])
    assert 58.0 < (await outbox.next_due(store) or 0.0) <= 60.0


async def test_an_interrupted_attempt_is_given_back(store: Database, history: History) -> None:
    """Any number of graceful shutdowns costs no attempt."""
    task_id = await submitted_one(store, max_attempts=1)
    await relayed(store)
    for _ in range(5):
        me = await worker(store)
        claim = await claimed(store, me, task_id)
        assert (claim.attempt, claim.failures) == (1, 0)
        assert await attempts.end(store, me, [outcome(claim, OutcomeKind.INTERRUPTED)]) == {task_id: "pending"}
        row = await tasks.get(store, task_id)
        assert (row["attempt"], row["started_at"], row["errors"]) == (0, None, "[]")
        assert [hint.attempt for hint in await relayed(store)] == [0]
    claim = await claimed(store, me, task_id)
    assert await attempts.complete(store, me, [outcome(claim, OutcomeKind.DONE)]) == {task_id}


async def test_a_snooze_costs_no_attempt(store: Database, history: History) -> None:
    """Failures count on where they stood, and the number of the start, the fence, goes on."""
    me, task_id = await worker(store), await submitted_one(store, max_attempts=2)
    await attempts.end(store, me, [outcome(await claimed(store, me, task_id), OutcomeKind.RETRY)])
    for snoozes in range(30):
        claim = await claimed(store, me, task_id)
        assert (claim.attempt, claim.max_attempts, claim.failures, claim.snoozes) == (
            snoozes + 2,
            snoozes + 2,
            1,
            snoozes,
        )
        snooze = outcome(claim, OutcomeKind.SNOOZE, delay_seconds=60.0)
        assert await attempts.end(store, me, [snooze]) == {task_id: "pending"}
        assert await attempts.end(store, me, [snooze]) == {}
    row = await tasks.get(store, task_id)
    assert (row["snoozes"], row["attempt"], row["max_attempts"]) == (30, 31, 32)
    assert 59.0 < (row["run_at"] - row["updated_at"]).total_seconds() < 61.0
    assert [(each["task_id"], each["attempt"]) for each in await outbox_rows(store)] == [(task_id, 31)]
    claim = await claimed(store, me, task_id)
    assert await attempts.end(store, me, [outcome(claim, OutcomeKind.RETRY)]) == {task_id: "failed"}


async def test_a_replay_counts_snoozes_anew_and_gives_all_attempts(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store, max_attempts=2)
    for kind in (OutcomeKind.SNOOZE, OutcomeKind.SNOOZE, OutcomeKind.FAILED):
        await attempts.end(store, me, [outcome(await claimed(store, me, task_id), kind)])
    assert (await tasks.get(store, task_id))["snoozes"] == 2
    await tasks.replay(store, task_id, by=SOMEBODY)
    claim = await claimed(store, me, task_id)
    assert (claim.attempt, claim.max_attempts, claim.failures, claim.snoozes) == (4, 5, 0, 0)


async def test_one_batch_may_hold_every_kind_of_end(store: Database, history: History) -> None:
    me = await worker(store)
    kinds = [OutcomeKind.FAILED, OutcomeKind.RETRY, OutcomeKind.CANCELLED, OutcomeKind.INTERRUPTED, OutcomeKind.SNOOZE]
    claims = [await claimed(store, me, task_id) for task_id in await submitted(store, 5)]
    ends = [outcome(claim, kind) for claim, kind in zip(claims, kinds, strict=True)]
    ended = await attempts.end(store, me, ends)
    assert [ended[claim.task_id] for claim in claims] == ["failed", "pending", "cancelled", "pending", "pending"]


async def test_errors_keep_the_newest(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store, max_attempts=limits.MAX_ATTEMPTS)
    for number in range(limits.MAX_ERRORS_KEPT + 3):
        claim = await claimed(store, me, task_id)
        error = AttemptError(type="E", message=f"number {number}")
        await attempts.end(store, me, [outcome(claim, OutcomeKind.RETRY, error=error)])
    kept = await store.fetch(
        "SELECT e ->> 'message' AS message, e ->> 'at' AS at FROM tasks, jsonb_array_elements(errors) AS e"
    )
    assert [row["message"] for row in kept] == [f"number {n}" for n in range(3, limits.MAX_ERRORS_KEPT + 3)]
    assert all(row["at"] for row in kept)


async def test_text_that_jsonb_cannot_hold_is_stored_readably(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    error = AttemptError(type="E", message="nul \x00 and surrogate \ud800 and ü", traceback="\x00")
    claim = await claimed(store, me, task_id)
    assert await attempts.end(store, me, [outcome(claim, OutcomeKind.FAILED, error=error)]) == {task_id: "failed"}
    (row,) = await store.fetch("SELECT errors -> 0 ->> 'message' AS message FROM tasks")
    assert row["message"].startswith("nul \ufffd and surrogate ")
    assert row["message"].endswith(" and ü")


async def test_progress_of_a_lost_claim_is_dropped(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    claim = await claimed(store, me, task_id)
    await attempts.show_progress(store, me, [(task_id, claim.attempt, '"half"')])
    await attempts.show_progress(store, me, [(task_id, claim.attempt + 1, '"wrong attempt"')])
    await attempts.show_progress(store, await worker(store), [(task_id, claim.attempt, '"wrong worker"')])
    assert (await tasks.get(store, task_id))["progress"] == '"half"'
    await attempts.end(store, me, [outcome(claim, OutcomeKind.RETRY)])
    assert (await claimed(store, me, task_id)).attempt == 2
    assert (await tasks.get(store, task_id))["progress"] is None


async def test_batches_in_opposite_orders_do_not_deadlock(store: Database) -> None:
    ids = await submitted(store, 200)
    crew = [await worker(store) for _ in range(4)]
    hints = [Hint(task_id, 0) for task_id in ids]
    for _ in range(10):
        await asyncio.gather(
            *(attempts.claim(store, crew[n], hints if n % 2 else list(reversed(hints))) for n in range(4)),
            outbox.release_hints(store, list(reversed(hints))),
            outbox.sweep(store, set(hints)),
        )
        claims = await store.fetch("SELECT id, attempt, worker_id FROM tasks WHERE status = 'processing'")
        assert len(claims) == 200
        for worker_id in crew:
            held = [Outcome(row["id"], row["attempt"], OutcomeKind.INTERRUPTED)
                    for row in claims if row["worker_id"] == worker_id]  # fmt: skip
            assert len(await attempts.end(store, worker_id, held)) == len(held)


async def test_released_hints_come_back_unless_they_are_stale(store: Database) -> None:
    me, (kept, taken) = await worker(store), await submitted(store, 2)
    await relayed(store)
    await claimed(store, me, taken)
    assert await outbox.release_hints(store, [Hint(kept, 0), Hint(taken, 0), Hint(kept, 5), Hint(10**12, 0)]) == 1
    assert [hint.task_id for hint in await relayed(store)] == [kept]


async def test_errors_are_told_in_utc_whatever_database_and_role_say(database: OwnDatabase) -> None:
    for what, value in (("TimeZone", "Asia/Kolkata"), ("DateStyle", "German"), ("IntervalStyle", "sql_standard")):
        await database.execute(f"ALTER DATABASE \"{database.name}\" SET {what} = '{value}'")
    store = await opened(database.url)
    try:
        me, (failed, lost) = await worker(store), await submitted(store, 2)
        claim = await claimed(store, me, failed)
        await claimed(store, me, lost)
        await attempts.end(store, me, [outcome(claim, OutcomeKind.FAILED)])
        await workers.unregister(store, me)
        await workers.take_back(store)
        rows = await store.fetch("SELECT errors -> 0 ->> 'at' AS at, now() AS now FROM tasks ORDER BY id")
    finally:
        await store.close()
    for row in rows:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", row["at"])
        assert abs((datetime.fromisoformat(row["at"]) - row["now"]).total_seconds()) < 60
