"""How a worker leaves: politely, uncounted, by itself, and although something does not let go."""

import asyncio
import threading
import time

from bobrai import Context
from tests.integration.worker.service import Service
from tests.support.eventually import eventually


async def test_running_tasks_are_finished_within_the_drain_time(either_service: Service) -> None:
    gate = asyncio.Event()

    @either_service.task("waits")
    async def waits() -> str:
        await gate.wait()
        return "finished"

    worker = await either_service.worker(drain_seconds=20)
    ids = await either_service.submit_many(5, "waits")
    await eventually(lambda: worker.inside.executor.running == 5)
    worker.stop.request("test")
    await eventually(lambda: worker.inside.executor.draining)
    late = await either_service.submit("echo")
    gate.set()
    await worker.ended()
    for task_id in ids:
        row = await either_service.row(task_id)
        assert (row["status"], row["result"], row["attempt"]) == ("done", "finished", 1)
    assert (await either_service.row(late))["status"] == "pending"
    assert await either_service.database.fetch("SELECT id FROM workers") == []


async def test_what_is_left_after_the_drain_time_is_given_back_uncounted(either_service: Service) -> None:
    starts: list[tuple[int, int]] = []
    second = asyncio.Event()

    @either_service.task("endless")
    async def endless(ctx: Context) -> None:
        starts.append((ctx.task_id, ctx.attempt))
        if not second.is_set():
            await asyncio.sleep(60)

    worker = await either_service.worker(drain_seconds=0.3, concurrency=3)
    ids = await either_service.submit_many(8, "endless")
    await eventually(lambda: worker.inside.executor.running == 3)
    worker.stop.request("test")
    await worker.ended()
    for task_id in ids:
        row = await either_service.row(task_id)
        assert (row["status"], row["attempt"], row["errors"]) == ("pending", 0, [])
    second.set()
    await either_service.worker()
    await either_service.all_final(ids)
    assert await either_service.count("status = 'done' AND attempt = 1") == 8
    await either_service.nothing_is_left()


async def test_handler_that_returns_early_because_of_the_shutdown_is_not_done(service: Service) -> None:
    @service.task("polite")
    def polite(ctx: Context) -> str:
        while not ctx.cancelled:
            time.sleep(0.01)
        return "half of it"

    worker = await service.worker(drain_seconds=0.2)
    task_id = await service.submit("polite")
    await service.reached(task_id, "processing")
    worker.stop.request("test")
    await worker.ended()
    row = await service.row(task_id)
    assert (row["status"], row["attempt"], row["result"]) == ("pending", 0, None)


async def test_stuck_threads_and_deaf_handlers_do_not_keep_the_worker(service: Service) -> None:
    let_go, gate = threading.Event(), asyncio.Event()

    @service.task("stuck")
    def stuck() -> None:
        let_go.wait(60)

    @service.task("deaf")
    async def deaf() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    worker = await service.worker(drain_seconds=0.2)
    ids = [await service.submit("stuck"), await service.submit("deaf")]
    await eventually(lambda: worker.inside.executor.running == 2)
    worker.stop.request("test")
    await worker.ended(timeout=8)
    for task_id in ids:
        row = await service.row(task_id)
        assert (row["status"], row["attempt"]) == ("pending", 0)
    let_go.set()
    gate.set()


async def test_worker_recycles_itself_after_a_number_of_tasks(service: Service) -> None:
    worker = await service.worker(max_tasks=5)
    ids = await service.submit_many(5)
    await service.all_final(ids)
    await worker.ended()
    assert not worker.stop.is_set()


async def test_worker_recycles_itself_when_its_memory_has_grown(service: Service) -> None:
    worker = await service.worker(max_memory_mib=1, wait=False)
    await worker.ended()
    assert not worker.stop.is_set()


async def test_rolling_replacement_under_load_costs_no_attempt(either_service: Service) -> None:
    @either_service.task("short")
    async def short(ctx: Context) -> int:
        await asyncio.sleep(0.05)
        return ctx.attempt

    worker = await either_service.worker(drain_seconds=0.02)
    ids = await either_service.submit_many(300, "short")
    for _ in range(3):
        await eventually(lambda worker=worker: worker.inside.executor.ended >= 20)
        successor = await either_service.worker(drain_seconds=0.02)
        worker.stop.request("test")
        await worker.ended()
        worker = successor
    await either_service.all_final(ids)
    assert await either_service.count("status = 'done' AND attempt = 1 AND errors = '[]'") == 300
    await either_service.nothing_is_left()
