"""What is due leaves the outbox in order, to one dispatcher each, and comes back when nothing else holds a task."""

import asyncio

from bobrai.domain.message import Hint
from bobrai.domain.task import Outcome, OutcomeKind
from bobrai.store import attempts, outbox, queues, submission, tasks
from bobrai.store.listener import Listener
from bobrai.store.outbox import CHANNEL
from bobrai.store.pool import Database
from bobrai.store.queues import Wishes
from tests.integration.store.builders import (
    claimed,
    new_task,
    outbox_rows,
    relayed,
    status,
    submitted,
    submitted_one,
    worker,
)
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually


async def test_the_most_urgent_leave_first_then_the_longest_due(store: Database) -> None:
    low, urgent, middle = [await submitted(store, 3, priority=priority) for priority in (0, 10, 5)]
    await store.fetch("UPDATE outbox SET due_at = due_at - interval '1 min' WHERE task_id = $1", middle[2])
    taken = [hint.task_id for hint in await relayed(store, room=7)]
    assert taken == [*urgent, middle[2], middle[0], middle[1], low[0]]
    assert [hint.task_id for hint in await relayed(store)] == low[1:]


async def test_each_queue_has_its_own_room(store: Database) -> None:
    for queue in ("a", "b", "c"):
        await submitted(store, 10, queue=queue)
    async with store.transaction() as transaction:
        taken = await outbox.take_due(transaction, {"a": 3, "b": 20}, 100)
    assert [hint.queue for hint in taken] == ["a"] * 3 + ["b"] * 10
    assert all(hint.waited_seconds >= 0.0 for hint in taken)


async def test_the_limit_over_all_serves_the_first_queues_named(store: Database) -> None:
    for queue in ("a", "b"):
        await submitted(store, 10, queue=queue)
    async with store.transaction() as transaction:
        taken = await outbox.take_due(transaction, {"b": 8, "a": 8}, 12)
    assert [hint.queue for hint in taken] == ["a"] * 4 + ["b"] * 8


async def test_a_paused_queue_keeps_its_hints_whatever_the_caller_believes(store: Database) -> None:
    await submitted(store, 2)
    await queues.change(store, "default", Wishes(paused=True), by=SOMEBODY)
    assert (await relayed(store), await queues.running(store), await outbox.next_due(store)) == ([], [], None)
    await queues.change(store, "default", Wishes(paused=False), by=SOMEBODY)
    assert len(await relayed(store)) == 2


async def test_two_dispatchers_never_take_the_same_hint(store: Database) -> None:
    ids = await submitted(store, 100)
    async with store.transaction() as one, store.transaction() as two:
        first = await outbox.take_due(one, {"default": 60}, 100)
        second = await outbox.take_due(two, {"default": 60}, 100)
    assert [hint.task_id for hint in first] == ids[:60]
    assert [hint.task_id for hint in second] == ids[60:]
    assert await outbox_rows(store) == []


async def test_a_dispatcher_that_dies_before_its_commit_leaves_every_row(
    database: OwnDatabase, store: Database
) -> None:
    ids = await submitted(store, 5)
    async with database.connect() as connection:
        await connection.execute("BEGIN")
        assert len(await outbox.take_due(connection, {"default": 9}, 9)) == 5
        connection.terminate()
    await eventually(lambda: relayed_ids(store, ids))


async def relayed_ids(store: Database, wanted: list[int]) -> bool:
    """Whether the relay gets exactly these now."""
    return [hint.task_id for hint in await relayed(store)] == wanted


async def test_hints_that_the_broker_refused_keep_their_place(store: Database) -> None:
    await submitted(store, 3, priority=4)
    before = await outbox_rows(store)
    async with store.repeatable() as transaction:
        await outbox.return_hints(transaction, await outbox.take_due(transaction, {"default": 9}, 9))
    assert [tuple(row) for row in await outbox_rows(store)] == [tuple(row) for row in before]


async def test_a_transaction_that_fails_takes_nothing(store: Database) -> None:
    await submitted(store, 3)
    for _ in range(20):  # more often than the pool has connections
        try:
            async with store.repeatable() as transaction:
                await outbox.take_due(transaction, {"default": 9}, 9)
                raise KeyError
        except KeyError:
            pass
    assert len(await outbox_rows(store)) == 3


async def test_a_transaction_that_is_cancelled_leaves_no_open_connection_behind(store: Database) -> None:
    await submitted(store, 3)

    async def hang() -> None:
        async with store.repeatable() as transaction:
            await outbox.take_due(transaction, {"default": 9}, 9)
            await transaction.fetch("SELECT pg_sleep(60)")

    hanging = [asyncio.ensure_future(hang()) for _ in range(8)]
    await eventually(lambda: _sleeping(store, 7))
    for each in hanging:
        each.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    assert len(await relayed(store)) == 3


async def _sleeping(store: Database, at_least: int) -> bool:
    return store.in_use >= at_least


async def test_next_due_is_the_nearest_of_all_queues_and_priorities(store: Database) -> None:
    assert await outbox.next_due(store) is None
    await submitted(store, priority=10, delay_seconds=500.0)
    await submitted(store, queue="other", delay_seconds=100.0)
    assert 95.0 < (await outbox.next_due(store) or 0.0) <= 100.0
    assert not await outbox.due_waits(store, "default")
    await submitted(store, priority=3)
    assert (await outbox.next_due(store) or 0.0) <= 0.0
    assert await outbox.due_waits(store, "default")
    assert not await outbox.due_waits(store, "other")


async def test_only_what_nothing_holds_is_swept(store: Database) -> None:
    me = await worker(store)
    lost, waiting, running, done_for, fresh = await submitted(store, 5)
    async with store.transaction() as transaction:
        await outbox.take_due(transaction, {"default": 9}, 9)
    await outbox.release_hints(store, [Hint(waiting, 0)])
    await claimed(store, me, running)
    await tasks.cancel(store, done_for, by=SOMEBODY)
    await store.fetch("UPDATE tasks SET run_at = run_at - interval '1 h' WHERE id <> $1", fresh)
    delayed = await submitted_one(store, delay_seconds=3600.0)
    await store.fetch("DELETE FROM outbox WHERE task_id = $1", delayed)
    assert await outbox.unheld(store, "default", 60.0, 100) == {Hint(lost, 0)}
    assert await outbox.unheld(store, "other", 60.0, 100) == set()
    assert await outbox.sweep(store, {Hint(lost, 0), Hint(running, 0), Hint(running, 1), Hint(done_for, 0)}) == 1
    assert {hint.task_id for hint in await relayed(store)} == {lost, waiting}
    assert len(await attempts.claim(store, me, [Hint(lost, 0)])) == 1


async def test_every_commit_of_outbox_rows_is_heard(database: OwnDatabase, store: Database) -> None:
    """The dispatcher sleeps until it is told; what is not said waits for the safety poll."""
    heard = asyncio.Event()
    listener = Listener(database.url, CHANNEL, timeout_seconds=5.0)
    await listener.open(heard.set, lambda: None)
    me = await worker(store)

    async def hears() -> None:
        async with asyncio.timeout(5):
            await heard.wait()
        await listener.check()
        heard.clear()

    try:
        task_id = (await submission.submit(store, [new_task()]))[0]
        await hears()
        await claimed(store, me, task_id)
        await attempts.end(store, me, [Outcome(task_id, 1, OutcomeKind.RETRY)])
        await hears()
        await relayed(store)
        await outbox.release_hints(store, [Hint(task_id, 1)])
        await hears()
        await relayed(store)
        await outbox.sweep(store, {Hint(task_id, 1)})
        await hears()
        await tasks.cancel(store, task_id, by=SOMEBODY)
        await tasks.replay(store, task_id, by=SOMEBODY)
        await hears()
        await queues.change(store, "default", Wishes(paused=False), by=SOMEBODY)
        await hears()
        assert await status(store, task_id) == ("pending", 1)
    finally:
        listener.close()
