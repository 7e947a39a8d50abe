"""Cancel, replay, list and prune: what a client can do to a task, and what time does."""

import asyncio

import pytest

from bobrai.domain.errors import DatabaseUnavailable, TaskNotFound, TransitionRefused
from bobrai.domain.message import Hint
from bobrai.domain.task import IdempotencyKey, OutcomeKind, TaskStatus
from bobrai.store import attempts, submission, tasks
from bobrai.store.pool import Database
from bobrai.store.tasks import TaskFilter
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
from tests.integration.store.history import History
from tests.support.authors import SOMEBODY
from tests.support.eventually import eventually
from tests.support.refusing import ignore


async def test_a_waiting_task_is_cancelled_at_once(store: Database, history: History) -> None:
    task_id = await submitted_one(store)
    await tasks.cancel(store, task_id, by=SOMEBODY)
    row = await tasks.get(store, task_id)
    assert (row["status"], row["attempt"], row["cancel_requested"]) == ("cancelled", 0, True)
    assert row["finished_at"] is not None
    assert await outbox_rows(store) == []
    assert await attempts.claim(store, await worker(store), [Hint(task_id, 0)]) == []


async def test_a_cancel_or_a_key_that_a_trigger_keeps_away_is_given_up(store: Database) -> None:
    task_id = await submitted_one(store)
    await ignore(store)
    with pytest.raises(DatabaseUnavailable, match="changed nothing"):
        await tasks.cancel(store, task_id, by=SOMEBODY)
    await store.fetch("CREATE TRIGGER none BEFORE INSERT ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION refuse()")
    key = IdempotencyKey(key="key", fingerprint=b"print", ttl_seconds=60.0)
    with pytest.raises(DatabaseUnavailable, match="neither stored nor there"):
        await submission.submit_keyed(store, [new_task()], key)


async def test_cancelling_twice_changes_nothing(store: Database, history: History) -> None:
    task_id = await submitted_one(store)
    await asyncio.gather(*(tasks.cancel(store, task_id, by=SOMEBODY) for _ in range(5)))
    assert await history.statuses(task_id) == ["cancelled"]


async def test_cancelling_a_running_task_is_a_wish(store: Database, history: History) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    claim = await claimed(store, me, task_id)
    await tasks.cancel(store, task_id, by=SOMEBODY)
    assert await status(store, task_id) == ("processing", 1)
    assert await attempts.end(store, me, [outcome(claim, OutcomeKind.CANCELLED)]) == {task_id: "cancelled"}


@pytest.mark.parametrize("kind", [OutcomeKind.RETRY, OutcomeKind.SNOOZE, OutcomeKind.INTERRUPTED])
async def test_a_wish_to_cancel_wins_over_another_attempt(store: Database, history: History, kind: OutcomeKind) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    claim = await claimed(store, me, task_id)
    await relayed(store)
    await tasks.cancel(store, task_id, by=SOMEBODY)
    assert await attempts.end(store, me, [outcome(claim, kind)]) == {task_id: "cancelled"}
    assert await outbox_rows(store) == []
    assert await status(store, task_id) == ("cancelled", 1)


async def test_a_result_wins_over_a_wish_to_cancel(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    claim = await claimed(store, me, task_id)
    await tasks.cancel(store, task_id, by=SOMEBODY)
    assert await attempts.complete(store, me, [outcome(claim, OutcomeKind.DONE)]) == {task_id}
    assert await status(store, task_id) == ("done", 1)


async def test_a_cancel_and_a_claim_at_once_agree(store: Database, history: History) -> None:
    """Whoever comes first decides: cancelled and never started, or started with the wish."""
    me = await worker(store)
    for task_id in await submitted(store, 40):
        claims, _ = await asyncio.gather(
            attempts.claim(store, me, [Hint(task_id, 0)]), tasks.cancel(store, task_id, by=SOMEBODY)
        )
        row = await tasks.get(store, task_id)
        assert (row["status"], row["cancel_requested"]) == ("processing" if claims else "cancelled", True)


async def test_a_cancel_during_a_replay_sees_the_task_as_it_was_before(store: Database) -> None:
    """CHECKs see the row as the statement's snapshot has it: a lock that read the replayed one made it half of each."""
    me, task_id = await worker(store), await submitted_one(store)
    await attempts.complete(store, me, [outcome(await claimed(store, me, task_id), OutcomeKind.DONE)])
    async with store.transaction() as replaying:
        await tasks.replay(replaying, task_id, by=SOMEBODY)
        cancel = asyncio.ensure_future(tasks.cancel(store, task_id, by=SOMEBODY))

        async def underway() -> bool:
            return cancel.done() or await blocked(store)

        await eventually(underway)
    with pytest.raises(TransitionRefused) as refused:
        await cancel
    assert refused.value.status == "done"
    assert await status(store, task_id) == ("pending", 1)
    assert await tasks.cancel(store, task_id, by=SOMEBODY) is TaskStatus.PENDING


async def test_a_cancel_that_waited_for_a_result_comes_too_late(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    claim = await claimed(store, me, task_id)
    async with store.transaction() as completing:
        await attempts.complete(completing, me, [outcome(claim, OutcomeKind.DONE)])
        cancel = asyncio.ensure_future(tasks.cancel(store, task_id, by=SOMEBODY))
        await eventually(lambda: blocked(store))
    with pytest.raises(TransitionRefused):
        await cancel
    assert await status(store, task_id) == ("done", 1)


@pytest.mark.parametrize("kind", [OutcomeKind.DONE, OutcomeKind.FAILED])
async def test_a_final_task_cannot_be_cancelled(store: Database, kind: OutcomeKind) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    claim = await claimed(store, me, task_id)
    await (attempts.complete if kind is OutcomeKind.DONE else attempts.end)(store, me, [outcome(claim, kind)])
    with pytest.raises(TransitionRefused) as refused:
        await tasks.cancel(store, task_id, by=SOMEBODY)
    assert refused.value.status == kind
    assert (await tasks.get(store, task_id))["cancel_requested"] is False


async def test_unknown_tasks_are_not_found(store: Database) -> None:
    with pytest.raises(TaskNotFound):
        await tasks.get(store, 10**12)
    for change in (tasks.cancel, tasks.replay):
        with pytest.raises(TaskNotFound):
            await change(store, 10**12, by=SOMEBODY)
    assert await tasks.read(store, [10**12]) == {}


async def test_a_replay_is_a_fresh_set_of_attempts_under_rising_numbers(store: Database, history: History) -> None:
    me, task_id = await worker(store), await submitted_one(store, max_attempts=2)
    numbers = []
    for _ in range(3):
        for kind in (OutcomeKind.RETRY, OutcomeKind.FAILED):
            claim = await claimed(store, me, task_id)
            numbers.append((claim.attempt, claim.failures, claim.max_attempts - claim.attempt))
            await attempts.end(store, me, [outcome(claim, kind)])
        await relayed(store)
        await tasks.replay(store, task_id, by=SOMEBODY)
        assert [hint.attempt for hint in await relayed(store)] == [claim.attempt]
    assert numbers == [(1, 0, 1), (2, 1, 0), (3, 0, 1), (4, 1, 0), (5, 0, 1), (6, 1, 0)]


async def test_a_replayed_task_looks_like_one_that_waits(store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store)
    claim = await claimed(store, me, task_id)
    await attempts.show_progress(store, me, [(task_id, 1, "1")])
    await attempts.complete(store, me, [outcome(claim, OutcomeKind.DONE)])
    await tasks.replay(store, task_id, by=SOMEBODY)
    row = await tasks.get(store, task_id)
    empty = ("result", "progress", "started_at", "finished_at")
    assert (row["status"], row["attempt"], [row[name] for name in empty]) == ("pending", 1, [None] * 4)
    assert await attempts.complete(store, me, [outcome(claim, OutcomeKind.DONE)]) == set()


@pytest.mark.parametrize("running", [False, True])
async def test_only_a_final_task_is_replayed(store: Database, running: bool) -> None:
    task_id = await submitted_one(store)
    if running:
        await claimed(store, await worker(store), task_id)
    with pytest.raises(TransitionRefused):
        await tasks.replay(store, task_id, by=SOMEBODY)
    assert len(await outbox_rows(store)) == 1


async def test_parallel_replays_start_one_set_of_attempts(store: Database, history: History) -> None:
    task_id = await submitted_one(store)
    await tasks.cancel(store, task_id, by=SOMEBODY)
    answers = await asyncio.gather(
        *(tasks.replay(store, task_id, by=SOMEBODY) for _ in range(6)), return_exceptions=True
    )
    assert [type(answer).__name__ for answer in answers].count("TransitionRefused") == 5
    assert await history.statuses(task_id) == ["cancelled", "pending"]


async def test_pages_neither_skip_nor_repeat_while_tasks_arrive(store: Database) -> None:
    ids = await submitted(store, 25)
    seen: list[int] = []
    before = None
    while rows := await tasks.page(store, TaskFilter(), before_id=before, limit=10):
        seen += [row["id"] for row in rows]
        before = seen[-1]
        await submitted(store, 3)
    assert seen == ids[::-1]


async def test_filters_narrow_a_page(store: Database) -> None:
    me = await worker(store)
    mail, media, other = [(await submitted(store, 2, type=kind, queue=kind)) for kind in ("mail", "media", "other")]
    claim = await claimed(store, me, media[0])
    await attempts.end(store, me, [outcome(claim, OutcomeKind.FAILED)])
    created = {row["id"]: row["created_at"] for row in (await tasks.read(store, [*mail, *media, *other])).values()}

    async def ids(**wanted: object) -> list[int]:
        return [row["id"] for row in await tasks.page(store, TaskFilter(**wanted), before_id=None, limit=100)]  # type: ignore[arg-type]

    assert await ids(status=TaskStatus.FAILED) == [media[0]]
    assert await ids(type="mail") == mail[::-1]
    assert await ids(queue="other") == other[::-1]
    assert await ids(queue="other", status=TaskStatus.DONE) == []
    assert await ids(created_after=created[mail[0]]) == [*other[::-1], *media[::-1]]
    assert await ids(created_before=created[other[0]]) == [*media[::-1], *mail[::-1]]


async def test_only_finished_tasks_past_their_retention_are_pruned(store: Database) -> None:
    old, fresh, waiting, running = await submitted(store, 4)
    await claimed(store, await worker(store), running)
    for task_id in (old, fresh):
        await tasks.cancel(store, task_id, by=SOMEBODY)
    await store.fetch("UPDATE tasks SET created_at = now() - interval '1 year'")
    await store.fetch("UPDATE tasks SET finished_at = now() - interval '8 days' WHERE id = $1", old)
    assert await tasks.prune(store, retention_seconds=7 * 86_400.0, limit=100) == 1
    assert set(await tasks.read(store, [old, fresh, waiting, running])) == {fresh, waiting, running}


async def test_pruners_share_the_work(store: Database) -> None:
    ids = await submitted(store, 50)
    await store.fetch("UPDATE tasks SET status = 'done', finished_at = now()")
    removed = await asyncio.gather(*(tasks.prune(store, retention_seconds=-1.0, limit=20) for _ in range(4)))
    assert sum(removed) + await tasks.prune(store, retention_seconds=-1.0, limit=100) == 50
    assert await tasks.read(store, ids) == {}
