"""The lease: kept while a handler blocks the loop, and what happens when it is lost."""

import asyncio
import threading
import time

from bobrai import Context, Retry
from bobrai.telemetry.logs import captured as capture_logs
from tests.integration.worker.service import Service
from tests.support.eventually import eventually


async def expires_at(service: Service, worker_id: int) -> float:
    rows = await service.database.fetch("SELECT extract(epoch FROM expires_at) FROM workers WHERE id = $1", worker_id)
    return float(rows[0][0])


async def test_handler_that_blocks_the_loop_keeps_its_lease_and_is_reported(service: Service) -> None:
    @service.task("blocks")
    async def blocks() -> None:
        stands_still_here(3.0)

    worker = await service.worker(lease_seconds=1.5, heartbeat_seconds=0.3, blocked_seconds=0.3)
    before = worker.id
    with capture_logs() as logs:
        row = await service.run("blocks")
        await eventually(lambda: [line for line in logs if line["event"] == "handler.unblocked"])
    assert (row["status"], row["attempt"]) == ("done", 1)
    assert worker.id == before
    blocked = [line for line in logs if line["event"] == "handler.blocked"]
    assert len(blocked) == 1
    assert "stands_still_here" in blocked[0]["stack"]
    assert (blocked[0]["task_id"], blocked[0]["type"]) == (row["id"], "blocks")
    assert 0.3 <= blocked[0]["seconds"] < 2
    unblocked = next(line for line in logs if line["event"] == "handler.unblocked")
    assert unblocked["seconds"] >= 2.5
    assert unblocked["task_id"] == row["id"]


def stands_still_here(seconds: float) -> None:
    """What no async handler should do."""
    time.sleep(seconds)


async def test_blocked_loop_is_seen_by_the_health_port(service: Service) -> None:
    seen: list[float] = []

    @service.task("blocks")
    async def blocks() -> None:
        looking = threading.Timer(0.6, lambda: seen.append(worker.inside.watch.blocked_for))
        looking.start()
        time.sleep(0.9)

    worker = await service.worker(blocked_seconds=0.2)
    await service.run("blocks")
    assert seen[0] > 0.3
    await eventually(lambda: worker.inside.watch.blocked_for < 0.2)


async def test_worker_whose_row_is_gone_stops_its_handlers_and_starts_over_under_a_new_id(service: Service) -> None:
    stopped: list[int] = []

    @service.task("long")
    async def long(ctx: Context) -> int:
        try:
            await asyncio.sleep(60 if ctx.attempt == 1 else 0)
        except asyncio.CancelledError:
            stopped.append(ctx.attempt)
            raise
        return ctx.attempt

    worker = await service.worker(heartbeat_seconds=0.2)
    lost = worker.id
    ids = await service.submit_many(5, "long", retry=Retry(max_attempts=3, delay_seconds=0))
    await eventually(lambda: worker.inside.executor.running == 5)
    await service.database.fetch("DELETE FROM workers WHERE id = $1", lost)
    await eventually(lambda: worker.id not in (None, lost), message="a new id")
    assert stopped == [1] * 5
    await service.all_final(ids)
    assert worker.id != lost
    for task_id in ids:
        row = await service.row(task_id)
        assert (row["status"], row["result"], row["attempt"]) == ("done", 2, 2)
        assert [error["reason"] for error in row["errors"]] == ["worker_lost"]
        assert row["worker_id"] == worker.id
    await service.nothing_is_left()


async def test_claim_that_finds_the_row_gone_starts_over_as_well(service: Service) -> None:
    worker = await service.worker(heartbeat_seconds=4.0)
    lost = worker.id
    await service.database.fetch("DELETE FROM workers WHERE id = $1", lost)
    assert (await service.run("echo"))["status"] == "done"
    assert worker.id != lost


async def test_outcome_of_an_overtaken_attempt_is_dropped_and_counted(service: Service) -> None:
    gate = asyncio.Event()

    @service.task("overtaken")
    async def overtaken(ctx: Context) -> str:
        if ctx.attempt == 1:
            await gate.wait()
        return f"attempt {ctx.attempt}"

    await service.worker()
    task_id = await service.submit("overtaken")
    await service.reached(task_id, "processing")
    await service.database.fetch(
        "WITH t AS (UPDATE tasks SET status = 'pending', worker_id = NULL WHERE id = $1 RETURNING id, attempt) "
        "INSERT INTO outbox SELECT id, attempt, 'default', 0, now() FROM t",
        task_id,
    )
    assert (await service.final(task_id))["result"] == "attempt 2"
    with capture_logs() as logs:
        gate.set()
        await eventually(lambda: [line for line in logs if line["event"] == "claim.lost"])
    assert (await service.row(task_id))["result"] == "attempt 2"


async def test_heartbeat_shows_how_many_run(service: Service) -> None:
    gate = asyncio.Event()

    @service.task("waits")
    async def waits() -> None:
        await gate.wait()

    worker = await service.worker(heartbeat_seconds=0.1)
    first = await expires_at(service, worker.id or 0)
    ids = await service.submit_many(3, "waits")

    async def shown() -> bool:
        rows = await service.database.fetch("SELECT running FROM workers WHERE id = $1", worker.id)
        return bool(rows[0][0] == 3)

    await eventually(shown, message="three are running")
    assert await expires_at(service, worker.id or 0) > first
    gate.set()
    await service.all_final(ids)


async def test_worker_says_which_types_it_has(service: Service) -> None:
    @service.task("mine")
    async def mine() -> None: ...

    await service.worker()
    rows = await service.database.fetch("SELECT types FROM workers")
    assert [sorted(row["types"]) for row in rows] == [["demo", "echo", "mine"]]
