"""SystemExit, KeyboardInterrupt and stop(), wherever a handler lets them loose: an attempt's end, and nobody else's."""

import json
from pathlib import Path
from typing import Any

from tests.support.databases import Database
from tests.support.own_handlers import reached, submit, with_handlers
from tests.support.processes import Processes
from tests.support.rabbitmq import VirtualHost

HANDLERS = """
import asyncio, pathlib, sys
from bobrai import Batch, Context, task

GATE = pathlib.Path(__file__).with_name("gate")

@task("neighbour")
async def neighbour() -> str:
    while not GATE.exists():
        await asyncio.sleep(0.02)
    return "unharmed"

@task("neighbours", batch=Batch(2))
async def neighbours(items) -> None:
    await neighbour()

async def leave(kind):
    await asyncio.sleep(0.01)
    raise kind(3)

@task("exit-in-group")
async def exit_in_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(leave(SystemExit))
        await asyncio.sleep(600)

@task("interrupt-in-gather")
async def interrupt_in_gather() -> None:
    await asyncio.gather(leave(KeyboardInterrupt), asyncio.sleep(600))

@task("exit-in-executor")
async def exit_in_executor() -> None:
    await asyncio.to_thread(sys.exit, 3)

@task("exit-in-thread")
def exit_in_thread() -> None:
    sys.exit(3)

@task("exit-in-callback")
async def exit_in_callback() -> str:
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    await asyncio.sleep(0.05)
    return "went on"

async def rest():
    await asyncio.sleep(600)

@task("cancels-all")
async def cancels_all(ctx: Context) -> str:
    ctx.progress("makes a task of the worker's own")
    own = asyncio.create_task(rest())
    others = asyncio.all_tasks() - {asyncio.current_task(), own}
    for each in (*others, own):
        each.cancel()
    await asyncio.wait([own])
    return "went on"

@task("takes-the-task-factory")
async def takes_the_task_factory() -> str:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, coro, **_: asyncio.Task(coro, loop=loop, name="the handler's own"))
    return asyncio.create_task(rest()).get_name()

@task("shuts-the-executor-down")
async def shuts_the_executor_down() -> str:
    await asyncio.get_running_loop().shutdown_default_executor()
    return await asyncio.to_thread(lambda: "went on")

@task("stops-the-loop")
async def stops_the_loop() -> str:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.05)
    return "went on"
"""
ENDS = {
    "exit-in-group": ("failed", "SystemExit"),
    "interrupt-in-gather": ("failed", "KeyboardInterrupt"),
    "exit-in-executor": ("failed", "SystemExit"),
    "exit-in-thread": ("failed", "SystemExit"),
    "exit-in-callback": ("done", None),
    "stops-the-loop": ("done", None),
    "takes-the-task-factory": ("done", None),
    "shuts-the-executor-down": ("done", None),
    "cancels-all": ("done", None),  # the last: it does reach the tasks that the others start
}


async def test_an_exit_that_a_handler_lets_loose_ends_its_attempt_and_nothing_else(
    processes: Processes, database: Database, rabbitmq: VirtualHost, tmp_path: Path
) -> None:
    with_handlers(processes, database, rabbitmq, tmp_path / "exiting_tasks.py", HANDLERS)
    worker = processes.start("worker")
    neighbours = await submit(database, "neighbour", count=3) + await submit(database, "neighbours", count=2)
    await reached(database, neighbours, "processing", timeout=30)
    leaving: list[int] = []
    for name in ENDS:
        leaving += await submit(database, name)
        if name in ("stops-the-loop", "cancels-all"):
            await reached(database, leaving, "done", "failed", "cancelled", timeout=30)
    rows = await database.fetch("SELECT type, status, errors FROM tasks WHERE id = ANY($1)", leaving)
    assert {row["type"]: (row["status"], _last_error_type(row)) for row in rows} == ENDS
    (tmp_path / "gate").touch()
    await reached(database, neighbours, "done", timeout=30)
    assert await database.fetchval("SELECT count(*) FROM tasks WHERE attempt = 1 AND id = ANY($1)", neighbours) == 5
    assert worker.is_ready()
    assert "never retrieved" not in worker.log_text()
    assert any(line["event"] == "process.loop_interrupted" for line in worker.log_events())


def _last_error_type(row: dict[str, Any]) -> str | None:
    errors: list[dict[str, str]] = json.loads(row["errors"])
    return errors[-1]["type"] if errors else None
