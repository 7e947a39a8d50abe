"""How attempts end: results, failures, retries, and what a handler or a payload can do wrong."""

import asyncio
import threading
import time
from typing import Any

import pytest
from pydantic import BaseModel

from bobrai import Context, PermanentFailure, Retry, RetryLater
from bobrai.domain import limits
from bobrai.telemetry import logs
from tests.integration.worker.service import Service
from tests.support.databases import Database
from tests.support.eventually import eventually


class Point(BaseModel):
    x: int
    y: int = 0


async def test_demo_says_what_it_processed_after_one_second(either_service: Service) -> None:
    await either_service.worker()
    row = await either_service.run("demo", "test task")
    assert row["status"] == "done"
    assert row["result"] == "processed: test task (1sec)"
    assert (row["finished_at"] - row["started_at"]).total_seconds() >= 1


async def test_echo_returns_its_payload_as_it_was_written(either_service: Service) -> None:
    await either_service.worker()
    text = '{"b": 1.50, "a":[1, 2,  3], "b": 2, "n": 12345678901234567890}'
    task_id = await either_service.submit("echo", text=text)
    await either_service.final(task_id)
    rows = await either_service.database.fetch("SELECT result FROM tasks WHERE id = $1", task_id)
    assert rows[0][0] == text


async def test_async_and_plain_handlers_get_typed_payloads_and_return_typed_results(service: Service) -> None:
    @service.task("async")
    async def shift(ctx: Context, payload: Point) -> Point:
        assert isinstance(payload, Point)
        return Point(x=payload.x + 1, y=ctx.attempt)

    @service.task("plain")
    def shift_in_thread(payload: Point) -> Point:
        assert threading.current_thread().name.startswith("handler-")
        return Point(x=payload.x + 2)

    @service.task("nothing")
    async def nothing() -> None:
        pass

    await service.worker()
    assert (await service.run("async", {"x": 1}))["result"] == {"x": 2, "y": 1}
    assert (await service.run("plain", {"x": "1"}))["result"] == {"x": 3, "y": 0}
    row = await service.run("nothing", {"ignored": True})
    assert (row["status"], row["result"]) == ("done", None)


async def test_context_tells_the_facts_of_the_attempt(service: Service) -> None:
    seen: list[Any] = []

    @service.task("facts", queue="default")
    async def facts(ctx: Context) -> None:
        seen.append((ctx.task_id, ctx.attempt, ctx.max_attempts, ctx.type, ctx.queue, ctx.request_id, ctx.cancelled))
        seen.append(ctx.remaining_seconds)
        seen.append(ctx.deadline.timestamp() - time.time())

    await service.worker()
    row = await service.run("facts", request_id="r-1", timeout_seconds=30.0, retry=Retry(max_attempts=7))
    assert seen[0] == (row["id"], 1, 7, "facts", "default", "r-1", False)
    assert 28 < seen[1] <= 30
    assert 28 < seen[2] <= 30


async def test_failed_attempts_are_retried_by_policy_and_each_error_is_kept(service: Service) -> None:
    starts: list[float] = []

    @service.task("flaky")
    async def flaky(ctx: Context) -> str:
        starts.append(time.monotonic())
        if ctx.attempt < 3:
            raise ValueError(f"attempt {ctx.attempt} fails")
        return "third time"

    await service.worker()
    policy = Retry(max_attempts=3, delay_seconds=0.3, factor=2, max_delay_seconds=10, jitter=0)
    row = await service.run("flaky", retry=policy)
    assert (row["status"], row["result"], row["attempt"]) == ("done", "third time", 3)
    assert [error["message"] for error in row["errors"]] == ["attempt 1 fails", "attempt 2 fails"]
    first = row["errors"][0]
    assert (first["type"], first["reason"], first["attempt"]) == ("ValueError", "error", 1)
    assert "raise ValueError" in first["traceback"]
    assert "bobrai/worker" not in first["traceback"]
    assert starts[1] - starts[0] >= 0.3
    assert starts[2] - starts[1] >= 0.6


async def test_last_attempt_fails_the_task(either_service: Service) -> None:
    @either_service.task("broken")
    def broken() -> None:
        raise KeyError("gone")

    await either_service.worker()
    row = await either_service.run("broken")
    assert (row["status"], row["attempt"], len(row["errors"])) == ("failed", 3, 3)


async def test_retry_later_costs_no_attempt_and_waits_as_long_as_it_says(either_service: Service) -> None:
    starts: list[tuple[float, int]] = []

    @either_service.task("later")
    async def later(ctx: Context) -> int:
        starts.append((time.monotonic(), ctx.attempt))
        if ctx.attempt < 4:
            raise RetryLater(0.4, "not yet")
        if ctx.attempt == 4:
            raise ValueError("a failure")
        return ctx.max_attempts

    with logs.captured() as lines:
        await either_service.worker()
        policy = Retry(max_attempts=2, delay_seconds=0.01, factor=100, max_delay_seconds=1000, jitter=0)
        row = await either_service.run("later", retry=policy)
        await eventually(lambda: any(line["event"] == "task.retried" for line in lines))
    assert (row["status"], row["result"], row["attempt"], row["snoozes"]) == ("done", 5, 5, 3)
    assert [error["reason"] for error in row["errors"]] == ["retry_later"] * 3 + ["error"]
    assert [attempt for _, attempt in starts] == [1, 2, 3, 4, 5]
    assert all(starts[n + 1][0] - starts[n][0] >= 0.4 for n in range(3))
    told = [(line["event"], line["delay_seconds"]) for line in lines if "delay_seconds" in line]
    assert told == [("task.snoozed", 0.4)] * 3 + [("task.retried", 0.01)], "no snooze lengthens the delays of failures"


async def test_retry_later_without_end_ends_failed(service: Service) -> None:
    @service.task("never")
    async def never() -> None:
        raise RetryLater(0)

    task_id = await service.submit("never", retry=Retry(max_attempts=2))
    await service.database.fetch("UPDATE tasks SET snoozes = $1", limits.MAX_SNOOZES - 1)
    await service.worker()
    row = await service.final(task_id)
    assert (row["status"], row["snoozes"], row["attempt"]) == ("failed", limits.MAX_SNOOZES, 3)


async def test_attempts_go_on_for_as_long_as_the_policy_says(service: Service) -> None:
    policy = Retry(retry_for_seconds=0.6, delay_seconds=0.2, factor=1, jitter=0)

    @service.task("for-a-while", retry=policy)
    async def for_a_while() -> None:
        raise KeyError("gone")

    with logs.captured() as lines:
        await service.worker()
        row = await service.run("for-a-while", retry=policy)
        await eventually(lambda: any(line["event"] == "task.failed" for line in lines))
    assert (row["status"], row["errors"][-1]["reason"], row["max_attempts"]) == ("failed", "error", 100)
    assert len(row["errors"]) == row["attempt"] <= 4, "they are 0.2 s apart, within 0.6 s"
    told = [line["event"] for line in lines if line["event"] in {"task.retried", "task.failed"}]
    assert told == ["task.retried"] * (row["attempt"] - 1) + ["task.failed"]


async def test_permanent_failure_leaves_no_further_attempt(service: Service) -> None:
    @service.task("hopeless")
    def hopeless() -> None:
        raise PermanentFailure("the account is closed")

    await service.worker()
    row = await service.run("hopeless")
    assert (row["status"], row["attempt"]) == ("failed", 1)
    assert row["errors"][0]["reason"] == "permanent"
    assert row["errors"][0]["message"] == "the account is closed"


async def test_exception_that_is_declared_non_retryable_leaves_no_further_attempt(either_service: Service) -> None:
    @either_service.task("strict", non_retryable=LookupError)
    async def strict() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())

    async def fails() -> None:
        raise KeyError("gone")

    @either_service.task("strict-thread", non_retryable=(ValueError, LookupError))
    def strict_thread() -> None:
        raise KeyError("gone")

    await either_service.worker()
    for type_ in ("strict", "strict-thread"):
        row = await either_service.run(type_)
        (error,) = row["errors"]
        assert (row["status"], row["attempt"], error["reason"]) == ("failed", 1, "non_retryable")
        assert 'raise KeyError("gone")' in error["traceback"]


async def test_payload_of_the_wrong_type_fails_permanently_and_names_the_place(service: Service) -> None:
    @service.task("typed")
    async def typed(payload: Point) -> None:
        raise AssertionError("must not be called")

    await service.worker()
    row = await service.run("typed", {"x": "secret-value"})
    assert (row["status"], row["attempt"]) == ("failed", 1)
    assert row["errors"][0]["reason"] == "invalid_payload"
    assert row["errors"][0]["message"].startswith("/x: ")
    assert "secret-value" not in str(row["errors"])


@pytest.mark.parametrize(
    "result",
    [object(), "x" * limits.MAX_RESULT_BYTES, float("nan"), "\ud800", {1: {2: {3}}, (1,): object()}],
    ids=["not JSON", "too large", "NaN", "lone surrogate", "set and tuple key"],
)
async def test_result_that_cannot_be_stored_fails_permanently(service: Service, result: object) -> None:
    @service.task("odd")
    async def odd() -> Any:
        return result

    await service.worker()
    row = await service.run("odd")
    assert (row["status"], row["attempt"], row["result"]) == ("failed", 1, None)
    assert row["errors"][0]["reason"] == "invalid_result"


async def test_result_of_the_wrong_type_fails_permanently(service: Service) -> None:
    @service.task("liar")
    def liar() -> Point:
        return {"x": "many"}  # type: ignore[return-value]

    await service.worker()
    assert (await service.run("liar"))["errors"][0]["reason"] == "invalid_result"


async def test_result_that_postgresql_refuses_fails_alone_and_is_not_stuck(service: Service) -> None:
    @service.task("refused")
    async def refused(payload: str) -> str:
        return payload

    # whatever PostgreSQL's reason may be, here it is a constraint
    await service.database.fetch("ALTER TABLE tasks ADD CHECK (result::text IS DISTINCT FROM '\"bad\"')")
    await service.worker(concurrency=20)
    good = await service.submit_many(10, "refused", "good")
    bad = await service.submit("refused", "bad")
    good += await service.submit_many(10, "refused", "good")
    await service.all_final([*good, bad])
    row = await service.row(bad)
    assert (row["status"], row["errors"][0]["reason"]) == ("failed", "invalid_result")
    assert await service.count("status = 'done'") == 20


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError(), RecursionError("deep")], ids=repr)
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_no_exception_of_a_handler_ends_the_worker(service: Service, error: BaseException, kind: str) -> None:
    if kind == "async":

        @service.task("fatal")
        async def fatal() -> None:
            raise error
    else:

        @service.task("fatal")
        def fatal_in_thread() -> None:
            raise error

    worker = await service.worker()
    row = await service.run("fatal", retry=Retry(max_attempts=1))
    assert row["status"] == "failed"
    assert row["errors"][0]["type"] == type(error).__name__
    assert (await service.run("echo"))["status"] == "done"
    assert not worker.serving.done()


async def test_cancelled_error_of_the_handlers_own_making_is_an_error(service: Service) -> None:
    @service.task("cancels-its-own")
    async def cancels_its_own() -> None:
        inner = asyncio.ensure_future(asyncio.sleep(60))
        inner.cancel()
        await inner

    await service.worker()
    row = await service.run("cancels-its-own", retry=Retry(max_attempts=1))
    assert (row["status"], row["errors"][0]["type"]) == ("failed", "asyncio.exceptions.CancelledError")


async def test_endless_recursion_and_unreadable_exceptions_are_kept_within_their_limits(service: Service) -> None:
    class Unreadable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    @service.task("deep")
    async def deep() -> None:
        def dive(depth: int) -> int:
            return dive(depth + 1) + 1

        dive(0)

    @service.task("long")
    async def long() -> None:
        raise ValueError("x" * 100_000 + "\x00")

    @service.task("unreadable")
    async def unreadable() -> None:
        raise Unreadable

    await service.worker()
    once = Retry(max_attempts=1)
    for kind in ("deep", "long", "unreadable"):
        error = (await service.run(kind, retry=once))["errors"][0]
        assert len(error["message"]) <= limits.MAX_ERROR_MESSAGE
        assert len(error["traceback"]) <= limits.MAX_TRACEBACK


async def test_progress_is_shown_while_the_attempt_runs(service: Service) -> None:
    go_on = threading.Event()

    @service.task("slow")
    def slow(ctx: Context) -> None:
        for step in range(1000):
            ctx.progress({"step": step})
        go_on.wait(20)

    await service.worker()
    task_id = await service.submit("slow")

    async def shown() -> bool:
        return bool((await service.row(task_id))["progress"] == {"step": 999})

    await eventually(shown, message="the latest progress is shown")
    go_on.set()
    assert (await service.final(task_id))["status"] == "done"


async def test_progress_that_cannot_be_shown_is_refused_to_the_handler(service: Service) -> None:
    refused: list[Exception] = []

    @service.task("odd-progress")
    async def odd_progress(ctx: Context) -> None:
        for value in (object(), "x" * limits.MAX_PROGRESS_BYTES):
            try:
                ctx.progress(value)
            except ValueError as error:
                refused.append(error)

    await service.worker()
    assert (await service.run("odd-progress"))["status"] == "done"
    assert len(refused) == 2


async def test_an_outcome_is_told_after_it_is_written(service: Service, database: Database) -> None:
    """A line that came first could stand for an outcome that never came to be, or stop it from being written."""
    ended = asyncio.Event()

    @service.task("fails")
    async def fails() -> None:
        await ended.wait()
        raise PermanentFailure("no")

    await service.worker()
    task_id = await service.submit("fails")
    await service.reached(task_id, "processing")

    def told() -> bool:
        return any(line["event"] == "task.failed" for line in lines)

    async def waits() -> bool:
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return bool(await database.fetchval(query))

    with logs.captured() as lines:
        async with database.connect() as connection, connection.transaction():
            await connection.execute("SELECT FROM tasks WHERE id = $1 FOR UPDATE", task_id)
            ended.set()
            await eventually(waits, message="the outcome's write waits for the row")
            assert not told()
        await eventually(told, message="the outcome is told")
    assert (await service.row(task_id))["status"] == "failed"
