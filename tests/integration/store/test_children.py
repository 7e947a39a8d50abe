"""A result and the tasks that it leaves are one commit, fenced like any other."""

import asyncio

import pytest

from bobrai.domain.errors import ClaimLost, DatabaseUnavailable
from bobrai.domain.task import OutcomeKind
from bobrai.store import children
from bobrai.store.children import Parent
from bobrai.store.pool import Database
from tests.integration.store.alike import alike
from tests.integration.store.builders import blocked, claimed, expired, new_task, outcome, submitted, worker
from tests.support.eventually import eventually

CHILDREN = "SELECT parent_id, type, priority FROM tasks WHERE parent_id IS NOT NULL ORDER BY id"
HINTS = "SELECT count(*) FROM outbox AS o JOIN tasks AS t ON t.id = o.task_id WHERE t.parent_id IS NOT NULL"


async def test_only_a_result_that_is_accepted_leaves_tasks_in_their_order(store: Database) -> None:
    me = await worker(store)
    first, lost, last = [await claimed(store, me, each) for each in await submitted(store, 3)]
    await store.fetch("UPDATE tasks SET attempt = 2 WHERE id = $1", lost.task_id)
    parents = [
        Parent(outcome(claim, OutcomeKind.DONE), [new_task(priority=place) for place in range(3)])
        for claim in (last, lost, first)
    ]
    assert await children.complete(store, me, parents) == {first.task_id: (), last.task_id: ()}
    rows = [tuple(row) for row in await store.fetch(CHILDREN)]
    assert rows == [(claim.task_id, "echo", place) for claim in (last, first) for place in range(3)]
    assert (await store.fetch(HINTS))[0][0] == 6


@pytest.mark.parametrize("kind", ["plain", "unique"])
async def test_a_result_that_comes_too_late_leaves_nothing(store: Database, kind: str) -> None:
    me = await worker(store)
    claim = await claimed(store, me, (await submitted(store))[0])
    await expired(store, me)
    task = alike(1) if kind == "unique" else new_task()
    parent = Parent(outcome(claim, OutcomeKind.DONE), [new_task(), task])
    await store.fetch("UPDATE tasks SET status = 'pending', worker_id = NULL WHERE id = $1", claim.task_id)
    assert await children.complete(store, me, [parent]) == {}
    with pytest.raises(ClaimLost):
        async with store.transaction() as connection:
            await children.complete_within(connection, me, parent)
    assert await store.fetch(CHILDREN) == []
    assert await store.fetch("SELECT FROM unique_tasks") == []


async def test_a_result_is_written_once_however_often_it_is_tried(store: Database) -> None:
    me = await worker(store)
    claim = await claimed(store, me, (await submitted(store))[0])
    parent = Parent(outcome(claim, OutcomeKind.DONE), [new_task()])
    answers = await asyncio.gather(*(children.complete(store, me, [parent]) for _ in range(8)))
    assert sorted(map(len, answers)) == [0] * 7 + [1]
    assert len(await store.fetch(CHILDREN)) == 1


async def test_tasks_of_which_there_is_one_are_not_left_twice_by_parents_that_end_together(store: Database) -> None:
    me = await worker(store)
    claims = [await claimed(store, me, each) for each in await submitted(store, 8)]
    parents = [Parent(outcome(claim, OutcomeKind.DONE), [new_task(), alike(1)]) for claim in claims]
    answers = await asyncio.gather(*(children.complete(store, me, [parent]) for parent in parents))
    assert sorted(tuple(places) for answer in answers for places in answer.values()) == [()] + [(1,)] * 7
    assert len(await store.fetch(CHILDREN)) == 9


async def test_a_task_that_somebody_holds_is_replaced_afterwards_or_within_a_transaction_refused(
    store: Database,
) -> None:
    me = await worker(store)
    claims = [await claimed(store, me, each) for each in await submitted(store, 3)]
    first, second, third = [Parent(outcome(claim, OutcomeKind.DONE), [alike(1, replace=True)]) for claim in claims]
    await children.complete(store, me, [first])
    (child,) = await store.fetch("SELECT id FROM tasks WHERE parent_id IS NOT NULL")
    async with store.transaction() as other:
        await other.fetch("SELECT FROM tasks WHERE id = $1 FOR UPDATE", child["id"])
        with pytest.raises(DatabaseUnavailable, match="is locked"):
            async with store.transaction() as connection:
                await children.complete_within(connection, me, second)
        waiting = asyncio.create_task(children.complete(store, me, [third]))
        await eventually(lambda: blocked(store))
    assert await waiting == {claims[2].task_id: [0]}
    assert len(await store.fetch(CHILDREN)) == 1


async def test_a_trigger_that_keeps_a_child_away_keeps_its_parent_open(store: Database) -> None:
    me = await worker(store)
    claim = await claimed(store, me, (await submitted(store))[0])
    await store.fetch("""CREATE FUNCTION keep_away() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'""")
    await store.fetch("CREATE TRIGGER keep_away BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION keep_away()")
    with pytest.raises(DatabaseUnavailable, match="keeps_tasks_away"):
        await children.complete(store, me, [Parent(outcome(claim, OutcomeKind.DONE), [new_task()])])
    assert (await store.fetch("SELECT status FROM tasks"))[0][0] == "processing"
