"""Calls of ``asyncio.to_thread`` that never end keep no later one from starting."""

import asyncio
import contextvars
import threading

import pytest
from prometheus_client import REGISTRY

from bobrai import Retry
from bobrai.telemetry.logs import captured
from bobrai.worker import default_executor
from tests.integration.worker.service import Service
from tests.support.eventually import eventually


async def test_hung_calls_give_their_places_to_others(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_executor, "LONG_SECONDS", 0.2)
    let_go = threading.Event()

    @service.task("hangs")
    async def hangs() -> None:
        await asyncio.to_thread(let_go.wait, 60)

    @service.task("quick")
    async def quick() -> str:
        return await asyncio.to_thread(lambda: "at once")

    await service.worker(concurrency=10)
    try:
        with captured() as lines:
            ids = await service.submit_many(40, "hangs", timeout_seconds=0.1, retry=Retry(max_attempts=1))
            await service.all_final(ids)
            assert (await service.run("quick"))["result"] == "at once"
            await eventually(lambda: any(line["event"] == "executor.crowded" for line in lines))
        assert (REGISTRY.get_sample_value("bobrai_worker_executor_calls_long") or 0) >= 32
    finally:
        let_go.set()


async def test_a_crowd_of_short_calls_shares_the_threads(service: Service) -> None:
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, sum(thread.name.startswith("to-thread") for thread in threading.enumerate()))

    @service.task("crowd")
    async def crowd() -> None:
        await asyncio.gather(*(asyncio.to_thread(look) for _ in range(500)))

    await service.worker(concurrency=3)
    assert (await service.run("crowd"))["status"] == "done"
    assert 0 < most <= 32


async def test_a_call_runs_in_its_callers_context() -> None:
    variable = contextvars.ContextVar("variable", default="outside")
    variable.set("inside")
    pool = default_executor.DefaultExecutor(1)
    assert await asyncio.get_running_loop().run_in_executor(pool, variable.get) == "inside"
    pool.shutdown()
