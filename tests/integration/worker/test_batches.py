"""One call for many tasks: when a call is made and with whom, and how each of its tasks ends."""

import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

import bobrai
from bobrai import Batch, CallNext, Context, Depends, Item, Retry
from bobrai.domain.task import OutcomeKind
from bobrai.handlers.registry import Registry
from bobrai.settings import load
from bobrai.telemetry import metrics
from bobrai.telemetry.logs import captured as capture_logs
from bobrai.worker.executor import Executor
from bobrai.worker.isolation import Isolation
from bobrai.worker.speeds import Speeds
from tests.integration.worker.executing import Nothing, Outcomes, end_of, start
from tests.integration.worker.service import Service
from tests.support.databases import Database
from tests.support.eventually import eventually

LONG = 50.0  # seconds that no test waits for: a call is made because something else says so


class Doc(BaseModel):
    tenant: str = ""
    wish: str = ""


def record(service: Service, size: int, **batch: Any) -> list[list[Item[Doc]]]:
    """Declare the type ``index``, and return the calls that it will get."""
    calls: list[list[Item[Doc]]] = []

    @service.task("index", batch=Batch(size, **batch))
    async def index(items: list[Item[Doc]]) -> list[int]:
        calls.append(items)
        return [item.task_id for item in items]

    return calls


def sizes(calls: list[list[Item[Doc]]]) -> list[int]:
    return [len(items) for items in calls]


async def errors(service: Service, task_id: int) -> list[tuple[str, str]]:
    row = await service.final(task_id)
    return [(error["reason"], error["message"]) for error in row["errors"]]


async def test_a_thousand_tasks_are_ten_calls_and_each_row_has_its_own_result(either_service: Service) -> None:
    calls = record(either_service, 100, wait_seconds=LONG)
    observed = metrics.HANDLER_BATCH_SIZE.labels("index")
    before = observed._sum.get()
    ids = await either_service.submit_many(1000, "index", {})
    await either_service.worker(concurrency=100)
    await either_service.all_final(ids, timeout=60)
    assert len(calls) <= 11
    assert sum(sizes(calls)) == 1000
    assert max(sizes(calls)) <= 100
    assert await either_service.count("status = 'done' AND attempt = 1 AND result::text = id::text") == 1000
    assert observed._sum.get() - before == 1000
    await either_service.nothing_is_left()


async def test_a_task_alone_is_called_when_its_wait_is_over(service: Service) -> None:
    calls = record(service, 100, wait_seconds=0.3)
    await service.worker(concurrency=100)
    row = await service.run("index", {})
    assert 0.3 <= (row["finished_at"] - row["started_at"]).total_seconds() < 3
    assert sizes(calls) == [1]


async def test_a_call_waits_no_longer_than_its_members_can(service: Service) -> None:
    calls = record(service, 100, wait_seconds=LONG)
    await service.worker(concurrency=100)
    patient = await service.submit("index", {})
    hasty = await service.submit("index", {}, timeout_seconds=2.0)
    assert (await service.final(hasty))["status"] == "done"
    assert (await service.final(patient))["status"] == "done"
    assert sizes(calls) == [2]


async def test_each_call_gets_tasks_of_one_key_and_those_without_are_among_themselves(service: Service) -> None:
    calls: list[list[Any]] = []

    @service.task("any", batch=Batch(2, LONG, key="/tenant"))
    async def any_(items: list[Item[Any]]) -> None:
        calls.append([item.payload for item in items])

    await service.worker()
    tenants: list[Any] = [{"tenant": "a"}, {}, {"tenant": 1}, {"tenant": None}, {"tenant": {"x": 1, "y": 2}}]
    first = [await service.submit("any", payload) for payload in tenants]
    again: list[Any] = [{"tenant": {"y": 2, "x": 1}}, {"tenant": None}, {"tenant": 1}, "text", {"tenant": "a"}]
    await service.all_final(first + [await service.submit("any", payload) for payload in again])
    assert sorted(calls, key=str) == sorted(map(list, zip(tenants, again[::-1], strict=True)), key=str)


async def test_nothing_waits_for_more_once_all_slots_are_taken_by_what_waits(service: Service) -> None:
    calls = record(service, 100, wait_seconds=LONG, key="/tenant")
    with capture_logs() as logs:
        await service.worker(concurrency=4)
    assert [(line["type"], line["size"], line["concurrency"]) for line in logs if "batches" in line["event"]] == [
        ("index", 100, 4)
    ]
    ids = [await service.submit("index", {"tenant": tenant}) for tenant in "aabb"]
    await service.all_final(ids)
    assert sizes(calls) == [2, 2]


async def test_other_types_go_on_while_a_group_waits(service: Service) -> None:
    calls = record(service, 100, wait_seconds=LONG)
    worker = await service.worker(concurrency=2)
    waits = await service.submit("index", {})
    await service.reached(waits, "processing")
    assert [(await service.run("echo", number))["result"] for number in range(20)] == list(range(20))
    assert calls == []
    assert worker.inside.executor.running == 1


async def test_no_more_items_are_in_calls_than_there_are_slots(service: Service) -> None:
    inside, most = 0, 0

    @service.task("slow", batch=Batch(3, 0.01))
    async def slow(items: list[Item[int]]) -> None:
        nonlocal inside, most
        inside += len(items)
        most = max(most, inside)
        await asyncio.sleep(0.02)
        inside -= len(items)

    await service.worker(concurrency=7)
    await service.all_final(await service.submit_many(60, "slow", 1))
    assert 3 < most <= 7


async def test_each_item_ends_as_the_handler_says_of_it(service: Service) -> None:
    @service.task("mixed", batch=Batch(7, LONG), non_retryable=Exception)
    async def mixed(items: list[Item[Doc]]) -> list[Any]:
        for item in items:
            item.progress(item.payload.wish)
            if item.attempt > 1:
                continue
            match item.payload.wish:
                case "fail":
                    item.fail("no such document")
                    item.retry()
                case "retry":
                    item.retry(reason="busy")
                case "later":
                    item.retry(0.01, "too early")
        return [object() if item.payload.wish == "bad result" else item.payload.wish for item in items]

    await service.worker()
    wishes = ["good", "fail", "retry", "later", "bad result", "good"]
    good, failed, again, later, bad, other = [await service.submit("mixed", {"wish": wish}) for wish in wishes]
    wrong = await service.submit("mixed", {"tenant": 1})
    assert await errors(service, wrong) == [("invalid_payload", "/tenant: Input should be a valid string")]
    await service.submit("mixed", {})
    assert await errors(service, failed) == [("permanent", "no such document")]
    assert [reason for reason, _ in await errors(service, bad)] == ["invalid_result"]
    for task_id in (good, other):
        row = await service.row(task_id)
        assert (row["status"], row["result"], row["progress"]) == ("done", "good", "good")
    # Those that come again wait for more of them.
    await eventually(lambda: service.workers[0].inside.executor.running == 2)
    await service.submit_many(5, "mixed", {})
    assert await errors(service, again) == [("error", "busy")]
    assert await errors(service, later) == [("retry_later", "too early")]
    rows = [await service.row(task_id) for task_id in (again, later)]
    assert [(row["status"], row["attempt"], row["snoozes"]) for row in rows] == [("done", 2, 0), ("done", 2, 1)]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1, 2], "the handler returned 2 results for 3 items"),
        ([1, 2, 3, 4], "the handler returned 4 results for 3 items"),
        ("abc", "the handler returned no list with one result for each of its 3 items"),
    ],
)
async def test_results_of_another_number_fail_every_item_that_is_not_marked(
    service: Service, returned: Any, message: str
) -> None:
    @service.task("miscounts", batch=Batch(3, LONG))
    async def miscounts(items: list[Item[str]]) -> list[Any]:
        next(item for item in items if item.payload == "marked").fail("marked")
        return returned  # type: ignore[no-any-return]

    await service.worker()
    ids = [await service.submit("miscounts", name) for name in ("a", "b", "marked")]
    expected = [("invalid_result", message), ("invalid_result", message), ("permanent", "marked")]
    assert [(await errors(service, task_id))[0] for task_id in ids] == expected


@pytest.mark.parametrize("runs", ["async", "thread"])
async def test_what_the_handler_raises_counts_for_every_item_that_is_not_marked(service: Service, runs: str) -> None:
    def fails(items: list[Item[str]]) -> None:
        for item in items:
            if item.payload == "marked":
                item.fail("marked")
        if items[0].attempt == 1:
            raise ValueError("the index is away")

    async def fails_async(items: list[Item[str]]) -> None:
        fails(items)

    service.task("fails", batch=Batch(3, LONG))(fails if runs == "thread" else fails_async)
    await service.worker()
    ids = [await service.submit("fails", name) for name in ("a", "b", "marked")]
    assert await errors(service, ids[2]) == [("permanent", "marked")]
    await eventually(lambda: service.workers[0].inside.executor.running == 2)  # they wait for a third one
    await service.submit("fails", "another")
    for task_id in ids[:2]:
        row = await service.final(task_id)
        [error] = row["errors"]
        assert (row["status"], row["result"], row["attempt"]) == ("done", None, 2)
        assert (error["type"], error["reason"], error["message"]) == ("ValueError", "error", "the index is away")
        assert "in fails" in error["traceback"]
        assert "batching.py" not in error["traceback"]


async def test_a_plain_handler_gets_its_batch_in_one_thread(service: Service) -> None:
    threads: list[str] = []

    @service.task("plain", batch=Batch(5, LONG))
    def plain(items: list[Item[int]]) -> tuple[int, ...]:
        threads.append(threading.current_thread().name)
        return tuple(2 * item.payload for item in items)

    await service.worker()
    ids = [await service.submit("plain", number) for number in range(5)]
    assert [(await service.final(task_id))["result"] for task_id in ids] == [0, 2, 4, 6, 8]
    assert len(threads) == 1
    assert threads[0].startswith("handler-")


@pytest.mark.parametrize("runs", ["async", "thread"])
async def test_middleware_runs_around_each_item_and_dependencies_are_given(service: Service, runs: str) -> None:
    seen: list[tuple[int, Any]] = []

    @service.registry.hooks.on_startup
    def factor() -> int:
        return 10

    @service.registry.middlewares.middleware
    async def around(ctx: Context, payload: Any, call_next: CallNext) -> Any:
        try:
            result = await call_next(payload + 1)
        except ValueError as error:
            result = str(error)
        seen.append((ctx.task_id, result))
        return result

    def multiply(items: list[Item[int]], *, by: Annotated[int, Depends(factor)]) -> list[Any]:
        if any(item.payload > 100 for item in items):
            raise ValueError("too many")
        return [by * item.payload for item in items]

    async def multiply_async(items: list[Item[int]], *, by: Annotated[int, Depends(factor)]) -> list[Any]:
        return multiply(items, by=by)

    service.task("multiply", batch=Batch(3, LONG))(multiply if runs == "thread" else multiply_async)
    await service.worker()
    three = [await service.submit("multiply", number) for number in range(3)]
    assert [(await service.final(task_id))["result"] for task_id in three] == [10, 20, 30]
    more = await service.submit_many(3, "multiply", 100)
    assert [(await service.final(task_id))["result"] for task_id in more] == ["too many"] * 3
    assert sorted(seen) == list(zip(three + more, [10, 20, 30, *["too many"] * 3], strict=True))


async def test_there_is_no_transaction_in_a_batch(service: Service) -> None:
    @service.task("writes", batch=Batch(1))
    async def writes(items: list[Item[None]]) -> None:
        for name in ("item", "ctx"):
            with pytest.raises(RuntimeError, match="batch"):
                items[0].transaction() if name == "item" else items[0].ctx.transaction()

    await service.worker()
    assert (await service.run("writes"))["status"] == "done"


async def test_lines_of_a_call_are_of_none_of_its_tasks(service: Service) -> None:
    @service.task("looks", batch=Batch(2, LONG))
    async def looks(items: list[Item[None]]) -> None:
        service_log.info("looked")

    service_log = bobrai.telemetry.logs.get_logger("test")
    await service.worker()
    with capture_logs() as logs:
        await service.all_final(await service.submit_many(2, "looks"))
    [line] = [line for line in logs if line["event"] == "looked"]
    assert (line["type"], line["items"]) == ("looks", 2)
    assert "task_id" not in line


MODULE = """
import os
from bobrai import Batch, Item, task

@task("index", batch=Batch(4, wait_seconds=50))
async def index(items: list[Item[int]]) -> list[list[int]]:
    return [[os.getpid(), len(items)] for item in items]
"""


async def test_a_task_that_was_lost_with_a_worker_is_a_call_of_its_own_in_a_process_of_its_own(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "batched.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOBRAI_DATABASE_URL", database.url)
    registry = Registry()
    monkeypatch.setitem(bobrai.__dict__, "task", registry.task)
    exec(compile(MODULE, "batched.py", "exec"), {"__name__": "batched"})
    settings = load(worker={"isolated": 4, "concurrency": 10}, top={"handlers": "batched"})
    isolation = Isolation(settings, lambda *_report: None)
    executor = Executor(registry, 10, Nothing(), Speeds(10), lambda: None, isolation=isolation)  # type: ignore[arg-type, return-value]
    executor.completions = outcomes = Outcomes()  # type: ignore[assignment]
    outcomes.settled = executor.settled
    try:
        suspect = start(executor, "index", "1", losses=1)
        others = [start(executor, "index", "1") for _ in range(4)]
        ended = [await end_of(executor, task_id) for task_id in (suspect, *others)]
    finally:
        isolation.close()
    assert [outcome.kind for outcome in ended] == [OutcomeKind.DONE] * 5
    pid, count = json.loads(ended[0].result)
    assert count == 1
    assert {outcome.result for outcome in ended[1:]} == {f"[{os.getpid()},4]"}
    assert pid != os.getpid()


async def test_each_item_shows_the_traceback_of_the_call_and_nothing_of_what_ran_around_others(
    service: Service,
) -> None:
    @service.registry.middlewares.middleware
    async def around(ctx: Context, payload: Any, call_next: CallNext) -> Any:
        return await call_next(payload)

    @service.task("raises", batch=Batch(3, LONG))
    async def raises(items: list[Item[None]]) -> None:
        raise ValueError("no")

    await service.worker()
    ids = await service.submit_many(3, "raises", retry=Retry(max_attempts=1))
    shown = [(await service.final(task_id))["errors"][0]["traceback"] for task_id in ids]
    assert [text.count("in around") for text in shown] == [1, 1, 1]
    assert len(set(shown)) == 1
