"""Attempts that are told to end: by a timeout or a user, and handlers that do not listen."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from bobrai import Context, Retry
from bobrai.store import tasks
from bobrai.telemetry.logs import captured as capture_logs
from bobrai.worker.executor import Executor
from tests.integration.worker.service import Service
from tests.support.authors import SOMEBODY
from tests.support.eventually import eventually

ONCE = Retry(max_attempts=1)


@pytest.fixture
def let_go() -> Iterator[threading.Event]:
    """Ends threads that a test left stuck."""
    event = threading.Event()
    yield event
    event.set()


async def test_async_handler_is_cancelled_at_its_timeout(either_service: Service) -> None:
    seen: list[bool] = []

    @either_service.task("endless")
    async def endless(ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(ctx.cancelled)

    await either_service.worker()
    row = await either_service.run("endless", timeout_seconds=0.2, retry=ONCE)
    assert (row["status"], row["errors"][0]["reason"]) == ("failed", "timeout")
    assert "0.2 s" in row["errors"][0]["message"]
    assert seen == [True]


async def test_timeout_is_retried_like_any_failure(service: Service) -> None:
    @service.task("slow-at-first")
    async def slow_at_first(ctx: Context) -> int:
        await asyncio.sleep(60 if ctx.attempt == 1 else 0)
        return ctx.attempt

    await service.worker()
    row = await service.run("slow-at-first", timeout_seconds=0.2)
    assert (row["status"], row["result"], len(row["errors"])) == ("done", 2, 1)


async def test_thread_that_outlives_its_timeout_is_reported_and_its_slot_replaced(
    service: Service, let_go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    @service.task("stuck")
    def stuck(ctx: Context) -> str:
        let_go.wait(60)
        return "too late"

    monkeypatch.setattr(Executor.__init__, "__defaults__", (0.2,))
    worker = await service.worker(concurrency=1)
    with capture_logs() as logs:
        row = await service.run("stuck", timeout_seconds=0.2, retry=ONCE)
        assert (row["status"], row["errors"][0]["reason"]) == ("failed", "timeout")
        assert (await service.run("echo", "the only slot is free"))["status"] == "done"
        await eventually(lambda: any(line["event"] == "handler.abandoned" for line in logs))
    report = next(line for line in logs if line["event"] == "handler.abandoned")
    assert (report["runs_in"], report["task_id"], report["type"]) == ("thread", row["id"], "stuck")
    let_go.set()
    await eventually(lambda: not any(thread.name == "stuck" for thread in threading.enumerate()))
    assert (await service.row(row["id"]))["status"] == "failed"
    assert worker.inside.executor.running == 0


async def test_thread_that_ends_soon_after_its_timeout_is_not_called_abandoned(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Executor.__init__, "__defaults__", (1.0,))

    @service.task("polite")
    def polite(ctx: Context) -> None:
        while not ctx.cancelled:
            time.sleep(0.01)

    @service.task("deaf")
    def deaf() -> None:
        let_go.wait(60)

    let_go = threading.Event()
    await service.worker(concurrency=1)
    with capture_logs() as logs:
        row = await service.run("polite", timeout_seconds=0.2, retry=ONCE)
        assert (row["status"], row["errors"][0]["reason"]) == ("failed", "timeout")
        await service.run("deaf", timeout_seconds=0.2, retry=ONCE)
        await eventually(lambda: any(line["event"] == "handler.abandoned" for line in logs))
    let_go.set()
    assert [line["type"] for line in logs if line["event"] == "handler.abandoned"] == ["deaf"]


async def test_thread_can_see_that_it_should_end(service: Service) -> None:
    ended = threading.Event()

    @service.task("polite")
    def polite(ctx: Context) -> None:
        while not ctx.cancelled:
            time.sleep(0.01)
        ended.set()

    await service.worker()
    task_id = await service.submit("polite")
    await service.reached(task_id, "processing")
    await tasks.cancel(service.database, task_id, by=SOMEBODY)
    assert (await service.final(task_id, timeout=5))["status"] == "cancelled"
    assert ended.is_set()


async def test_users_cancel_ends_a_running_task_within_five_seconds(either_service: Service) -> None:
    @either_service.task("endless")
    async def endless() -> None:
        await asyncio.sleep(60)

    await either_service.worker()
    task_id = await either_service.submit("endless")
    await either_service.reached(task_id, "processing")
    wished = time.monotonic()
    await tasks.cancel(either_service.database, task_id, by=SOMEBODY)
    row = await either_service.final(task_id, timeout=6)
    assert time.monotonic() - wished < 5
    assert (row["status"], row["errors"]) == ("cancelled", [])


async def test_cancelled_task_that_waits_for_a_slot_never_starts(service: Service) -> None:
    gate = asyncio.Event()
    starts: list[int] = []

    @service.task("one-at-a-time")
    async def one_at_a_time(ctx: Context) -> None:
        starts.append(ctx.task_id)
        await gate.wait()

    worker = await service.worker(concurrency=1, heartbeat_seconds=0.1)
    executor = worker.inside.executor
    worker.inside.claims._room = lambda: executor.free + 1 - executor.ready
    worker.inside.claims.intakes["default"].subscription.resize(2)  # one ahead, as for quick tasks
    first, second = await service.submit_many(2, "one-at-a-time")
    await eventually(lambda: executor.ready == 1 and starts)
    waiting = second if starts == [first] else first
    await tasks.cancel(service.database, waiting, by=SOMEBODY)
    assert (await service.final(waiting))["status"] == "cancelled"
    gate.set()
    await service.all_final([first, second])
    assert len(starts) == 1


async def test_handler_that_swallows_its_cancel_is_reported_and_its_late_outcome_dropped(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Executor.__init__, "__defaults__", (0.2,))
    gate, ended = asyncio.Event(), asyncio.Event()

    @service.task("deaf")
    async def deaf() -> str:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        return "too late"

    await service.worker(concurrency=1)
    with capture_logs() as logs:
        row = await service.run("deaf", timeout_seconds=0.2, retry=ONCE)
        assert (row["status"], row["errors"][0]["reason"]) == ("failed", "timeout")
        assert (await service.run("echo", "the only slot is free"))["status"] == "done"
    report = next(line for line in logs if line["event"] == "handler.abandoned")
    assert (report["runs_in"], report["cause"]) == ("event loop", "timeout")
    gate.set()
    await asyncio.wait_for(ended.wait(), 10)
    await service.run("echo")
    row = await service.row(row["id"])
    assert (row["status"], row["result"]) == ("failed", None)


async def test_result_that_comes_after_the_cancel_does_not_count(service: Service) -> None:
    @service.task("cleans-up")
    async def cleans_up() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "partial"
        return "whole"

    await service.worker()
    row = await service.run("cleans-up", timeout_seconds=0.1, retry=ONCE)
    assert (row["status"], row["result"], row["errors"][0]["reason"]) == ("failed", None, "timeout")


async def test_concurrency_is_a_hard_limit(service: Service) -> None:
    running = most = 0

    @service.task("counted")
    async def counted() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    @service.task("counted-in-thread")
    def counted_in_thread() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)
        running -= 1

    await service.worker(concurrency=3)
    for kind in ("counted", "counted-in-thread"):
        await service.all_final(await service.submit_many(60, kind))
    assert most == 3
