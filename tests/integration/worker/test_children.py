"""``ctx.submit``: follow-up tasks are stored in the commit that completes their parent, or not at all."""

import asyncio
import json
import threading
from typing import Any

import pytest

from bobrai import Batch, Context, Item, PermanentFailure, Retry, RetryLater, Submission, Unique
from bobrai.domain import limits
from bobrai.telemetry import metrics
from tests.integration.worker.service import Service
from tests.support.authors import SOMEBODY
from tests.support.eventually import eventually

ONCE = Retry(max_attempts=1)


async def children_of(service: Service, parent_id: int) -> list[dict[str, Any]]:
    rows = await service.database.fetch("SELECT * FROM tasks WHERE parent_id = $1 ORDER BY id", parent_id)
    return [{**row, "payload": json.loads(row["payload"]), "retry": json.loads(row["retry"])} for row in rows]


@pytest.fixture
async def seen(service: Service) -> list[Any]:
    """What the handler of the type ``child`` has got."""
    got: list[Any] = []

    @service.task("child", queue="children", timeout=77, deadline=3600, retry=Retry(max_attempts=7, delay_seconds=0.5))
    async def child(ctx: Context, payload: dict[str, int]) -> int:
        got.append(payload["n"])
        return payload["n"]

    return got


async def test_children_are_stored_with_the_result_and_run(service: Service, seen: list[Any]) -> None:
    before: list[int] = []

    @service.task("parent")
    async def parent(ctx: Context) -> str:
        ctx.submit("child", {"n": 1}, priority=5)
        ctx.submit_many([Submission("child", {"n": 2}), Submission("child", {"n": 3})])
        before.append(await service.count("parent_id IS NOT NULL"))
        return "done"

    await service.worker(queues=["default", "children"])
    row = await service.run("parent", request_id="r-1", client_id="key:abc", trace_context="00-1-2-01")
    assert before == [0]
    children = await children_of(service, row["id"])
    assert [child["payload"] for child in children] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert [child["priority"] for child in children] == [5, 0, 0]
    assert {child["created_at"] for child in children} == {row["finished_at"]}  # one commit
    for child in children:
        assert (child["request_id"], child["client_id"], child["trace_context"]) == ("r-1", "key:abc", "00-1-2-01")
        # What they do not say is their type's.
        assert (child["queue"], child["timeout_seconds"], child["max_attempts"]) == ("children", 77, 7)
        assert (child["deadline_at"] - child["created_at"]).total_seconds() == 3600
        assert child["retry"]["delay_seconds"] == 0.5
    await service.all_final([child["id"] for child in children])
    assert sorted(seen) == [1, 2, 3]
    await service.nothing_is_left()


async def test_a_thread_submits_as_well_and_from_many_threads_at_once(service: Service, seen: list[Any]) -> None:
    @service.task("parent")
    def parent(ctx: Context) -> None:
        def some(start: int) -> None:
            for n in range(start, start + 100):
                ctx.submit("child", {"n": n})

        threads = [threading.Thread(target=some, args=(start,)) for start in range(0, 400, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    await service.worker(queues=["default", "children"])
    row = await service.run("parent")
    await eventually(lambda: len(seen) == 400)
    assert sorted(seen) == list(range(400))
    assert len(await children_of(service, row["id"])) == 400


async def test_no_other_end_of_an_attempt_submits_anything(service: Service, seen: list[Any]) -> None:
    @service.task("fails", retry=ONCE)
    async def fails(ctx: Context) -> None:
        ctx.submit("child", {"n": 1})
        raise PermanentFailure("after it")

    @service.task("wrong-result", retry=ONCE)
    async def wrong_result(ctx: Context) -> int:
        ctx.submit("child", {"n": 2})
        return "many"  # type: ignore[return-value]

    @service.task("too-long", retry=ONCE, timeout=0.05)
    async def too_long(ctx: Context) -> None:
        ctx.submit("child", {"n": 3})
        await asyncio.Event().wait()

    @service.task("third-time", retry=Retry(max_attempts=3, delay_seconds=0.01))
    async def third_time(ctx: Context) -> None:
        ctx.submit("child", {"n": 10 + ctx.attempt})
        if ctx.attempt == 1:
            raise ValueError("not yet")
        if ctx.attempt == 2:
            raise RetryLater(0.01)

    waits = asyncio.Event()

    @service.task("cancelled")
    async def cancelled(ctx: Context) -> None:
        ctx.submit("child", {"n": 4})
        waits.set()
        await asyncio.Event().wait()

    await service.worker(queues=["default", "children"])
    statuses = [(await service.run(type_))["status"] for type_ in ("fails", "wrong-result")]
    statuses.append((await service.run("too-long", timeout_seconds=0.05, retry=ONCE))["status"])
    assert statuses == ["failed"] * 3
    task_id = await service.submit("cancelled")
    await waits.wait()
    from bobrai.store import tasks

    await tasks.cancel(service.database, task_id, by=SOMEBODY)
    assert (await service.final(task_id))["status"] == "cancelled"
    row = await service.run("third-time")
    assert row["status"] == "done"
    await eventually(lambda: seen == [13])
    assert await service.count("parent_id IS NOT NULL") == 1


async def test_a_lost_claim_submits_nothing(service: Service, seen: list[Any]) -> None:
    first, go = asyncio.Event(), asyncio.Event()

    @service.task("parent")
    async def parent(ctx: Context) -> None:
        ctx.submit("child", {"n": ctx.attempt})
        if ctx.attempt == 1:
            first.set()
            await go.wait()

    await service.worker(queues=["default", "children"])
    task_id = await service.submit("parent")
    await first.wait()
    # Another attempt has taken it.
    await service.database.fetch("UPDATE tasks SET attempt = 2, max_attempts = 5 WHERE id = $1", task_id)
    lost = metrics.CLAIMS_LOST._value.get()
    go.set()
    await eventually(lambda: metrics.CLAIMS_LOST._value.get() > lost)
    assert await service.count("parent_id IS NOT NULL") == 0


async def test_children_and_the_rows_of_a_transaction_are_one_commit(service: Service, seen: list[Any]) -> None:
    await service.database.fetch("CREATE TABLE effects (task_id bigint)")

    @service.task("parent")
    async def parent(ctx: Context, payload: str) -> None:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO effects VALUES ($1)", ctx.task_id)
            ctx.submit("child", {"n": 1})
        if payload != "well":
            ctx.submit("nobody-knows-it")

    await service.worker(queues=["default", "children"])
    row = await service.run("parent", "well")
    await service.all_final([child["id"] for child in await children_of(service, row["id"])])
    assert seen == [1]
    failed = await service.run("parent", "badly", retry=ONCE)
    assert failed["status"] == "failed"
    assert "'nobody-knows-it'" in failed["errors"][0]["message"]
    rows = await service.database.fetch("SELECT task_id FROM effects")
    assert [each[0] for each in rows] == [row["id"]]
    assert await service.count("parent_id IS NOT NULL") == 1


async def test_each_item_of_a_batch_has_its_own_children(service: Service, seen: list[Any]) -> None:
    @service.task("batched", batch=Batch(size=3, wait_seconds=5), retry=ONCE)
    async def batched(items: list[Item[int]]) -> None:
        for item in items:
            item.submit("child", {"n": item.payload})
            item.submit_many("child", [{"n": item.payload + 10}])
            if item.payload == 2:
                item.fail("it is two")

    await service.worker(queues=["default", "children"])
    ids = [await service.submit("batched", n, retry=ONCE) for n in (1, 2, 3)]
    assert [(await service.final(task_id))["status"] for task_id in ids] == ["done", "failed", "done"]
    await eventually(lambda: sorted(seen) == [1, 3, 11, 13])
    parents = await service.database.fetch("SELECT parent_id FROM tasks WHERE parent_id IS NOT NULL ORDER BY id")
    assert sorted(row[0] for row in parents) == [ids[0], ids[0], ids[2], ids[2]]


async def test_a_wrong_call_is_told_where_it_stands_and_submits_nothing(service: Service, seen: list[Any]) -> None:
    told: list[str] = []

    @service.task("parent")
    async def parent(ctx: Context) -> None:
        calls: list[Any] = [
            lambda: ctx.submit("child", {"n": "one"}),
            lambda: ctx.submit("child", {"n": 1}, priority=11),
            lambda: ctx.submit("child", {"n": 1}, delay=float("nan")),
            lambda: ctx.submit("child", {"n": 1}, delay=5, deadline=5),
            lambda: ctx.submit("child", {"n": 1}, queue="No Queue"),
            lambda: ctx.submit("child", {"n": 1}, retry={"attempts": 3}),
            lambda: ctx.submit("child", {"n": 1}, unique={"key": "no pointer"}),
            lambda: ctx.submit("child", {"n": 1}, prio=3),  # type: ignore[call-arg]
            lambda: ctx.submit(print, {"n": 1}),
            lambda: ctx.submit("child", object()),
            lambda: ctx.submit("child", "x" * 10_001),
            lambda: ctx.submit("child", ["x" * limits.MAX_BODY_BYTES]),
            lambda: ctx.submit_many("child", [{"n": 1}, {"n": "two"}]),
            lambda: ctx.submit_many("child", [{"n": 1}] * 1001),
        ]
        for call in calls:
            try:
                call()
            except (ValueError, TypeError) as error:
                told.append(str(error))

    await service.worker()
    assert (await service.run("parent"))["status"] == "done"
    wanted = [
        "the payload is none of type 'child': /n",
        "priority: Expected `int` <= 10",
        "delay_seconds must be a finite number",
        "deadline_seconds must be more than delay_seconds",
        "queue: Expected `str` matching regex",
        "retry: ",
        "",
        "there is no option 'prio'",
        "is neither the name of a task type nor a function",
        "the payload cannot be written as JSON",
        "must have 1 to 10000 characters, not 10001",
        "bytes of JSON; at most 262144 are accepted",
        "the payload is none of type 'child': /n",
        "at most 1000 tasks",
    ]
    assert len(told) == len(wanted)
    assert all(words in message for words, message in zip(wanted, told, strict=True)), told
    assert await service.count("parent_id IS NOT NULL") == 0


async def test_an_unknown_type_is_an_error_of_the_attempt_and_harms_no_other(service: Service, seen: list[Any]) -> None:
    @service.task("parent")
    async def parent(ctx: Context, payload: str) -> None:
        ctx.submit("child", {"n": 1})
        ctx.submit(payload, {"n": 2})

    await service.worker(queues=["default", "children"], concurrency=20)
    ids = [await service.submit("parent", "child" if n % 2 else "no-such-type", retry=ONCE) for n in range(20)]
    rows = [await service.final(task_id) for task_id in ids]
    assert [row["status"] for row in rows] == ["failed", "done"] * 10
    assert (
        "'no-such-type', which the handler has submitted, is not a known task type" in rows[0]["errors"][0]["message"]
    )
    assert rows[0]["errors"][0]["traceback"] == ""
    assert await service.count("parent_id IS NOT NULL") == 20


async def test_a_type_of_other_workers_is_looked_up(service: Service) -> None:
    @service.task("parent")
    async def parent(ctx: Context) -> None:
        ctx.submit("elsewhere", {"any": "thing"})

    await service.worker()
    await service.database.fetch(
        """INSERT INTO task_types (name, queue, payload_schema, result_schema, retry, timeout_seconds)
           VALUES ('elsewhere', 'far', '{}', '{}', '{"max_attempts": 9}', 12.5)"""
    )
    [child] = await children_of(service, (await service.run("parent"))["id"])
    assert (child["queue"], child["timeout_seconds"], child["max_attempts"]) == ("far", 12.5, 9)
    assert [row["name"] for row in await service.database.fetch("SELECT name FROM queues WHERE name = 'far'")] == [
        "far"
    ]


async def test_a_child_of_which_there_is_one_is_not_made_twice(service: Service) -> None:
    @service.task("parent")
    async def parent(ctx: Context, payload: int) -> None:
        ctx.submit("sync", {"account": 7, "by": payload}, delay=600)
        ctx.submit("plain", payload, delay=600)

    @service.task("sync", unique=Unique(key="/account"))
    async def sync(payload: dict[str, int]) -> None: ...

    @service.task("plain")
    async def plain(payload: int) -> None: ...

    await service.worker()
    parents = [await service.submit("parent", n) for n in range(10)]
    await service.all_final(parents)
    assert await service.count("type = 'sync'") == 1
    assert await service.count("type = 'plain'") == 10


async def test_a_unique_task_may_submit_the_next_of_its_kind(service: Service) -> None:
    """It has ended when its child is looked at: a task that runs on and on submits itself anew."""
    runs: list[int] = []

    @service.task("poll", unique=Unique(key="/account"))
    async def poll(ctx: Context, payload: dict[str, int]) -> None:
        runs.append(payload["round"])
        if payload["round"] < 3:
            ctx.submit(poll, {**payload, "round": payload["round"] + 1})

    await service.worker()
    await service.run("poll", {"account": 1, "round": 1})
    await eventually(lambda: runs == [1, 2, 3])


async def test_what_is_submitted_is_counted_where_it_waits(service: Service, seen: list[Any]) -> None:
    @service.task("parent")
    async def parent(ctx: Context) -> None:
        ctx.submit_many("child", [{"n": 1}, {"n": 2}], queue="elsewhere")

    counter = metrics.TASKS_SUBMITTED.labels("elsewhere", "child")
    await service.worker()
    await service.run("parent")
    await eventually(lambda: counter.value == 2)
