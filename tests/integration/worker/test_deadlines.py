"""A task's deadline ends its attempts, wherever they run, and what waits with it; its expiry what never started."""

import asyncio
import time

import pytest

from bobrai import Context
from tests.integration.worker.service import Service


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_running_attempt_is_stopped_at_the_deadline(either_service: Service, kind: str) -> None:
    seen: list[float] = []

    if kind == "async":

        @either_service.task("endless")
        async def endless(ctx: Context) -> None:
            seen.append(ctx.remaining_seconds)
            await asyncio.sleep(600)
    else:

        @either_service.task("endless")
        def endless_thread(ctx: Context) -> None:
            seen.append(ctx.remaining_seconds)
            while not ctx.cancelled:
                time.sleep(0.01)

    await either_service.worker()
    row = await either_service.run("endless", deadline_seconds=1.5)
    (error,) = row["errors"]
    assert (row["status"], row["attempt"], error["reason"]) == ("failed", 1, "deadline")
    assert 0 < seen[0] <= 1.5
    assert row["finished_at"] >= row["deadline_at"]


async def test_a_timeout_before_the_deadline_is_a_timeout(service: Service) -> None:
    @service.task("slow")
    async def slow(ctx: Context) -> str:
        if ctx.attempt == 1:
            await asyncio.sleep(600)
        return "second"

    await service.worker()
    row = await service.run("slow", timeout_seconds=0.3, deadline_seconds=600)
    assert (row["status"], row["result"], row["errors"][0]["reason"]) == ("done", "second", "timeout")


async def test_a_task_of_a_queue_that_nobody_consumes_fails_at_its_deadline(service: Service) -> None:
    task_id = await service.submit("echo", queue="elsewhere", deadline_seconds=0.2)
    row = await service.final(task_id)
    assert (row["status"], row["attempt"], row["errors"][0]["reason"]) == ("failed", 0, "deadline")


async def test_what_no_worker_takes_before_it_expires_is_cancelled(service: Service) -> None:
    task_id = await service.submit("echo", queue="elsewhere", expires_seconds=0.2)
    row = await service.final(task_id)
    assert (row["status"], row["attempt"], row["errors"][0]["reason"]) == ("cancelled", 0, "expired")


async def test_what_runs_when_it_expires_runs_on_and_so_does_its_next_attempt(service: Service) -> None:
    @service.task("slow")
    async def slow(ctx: Context) -> str:
        await service.database.fetch("UPDATE tasks SET expires_at = now() WHERE id = $1", ctx.task_id)
        if ctx.attempt == 1:
            raise ValueError
        return "second"

    await service.worker()
    row = await service.run("slow", expires_seconds=600.0)
    assert (row["status"], row["result"], row["attempt"]) == ("done", "second", 2)
