"""SystemExit, KeyboardInterrupt and stop(), wherever a handler lets them loose: an attempt's end, and nobody else's."""

import json
from pathlib import Path
from typing import Any

from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.processes import Processes
from tests.support.rabbitmq import VirtualHost

HANDLERS = """
import asyncio, pathlib, sys
from bobrai import task

GATE = pathlib.Path(__file__).with_name("gate")

@task("neighbour")
async def neighbour() -> str:
    while not GATE.exists():
        await asyncio.sleep(0.02)
    return "unharmed"

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
}
_SUBMIT = """
WITH t AS (INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds)
           SELECT name, 'default', 'null', 1, '{"max_attempts": 1}', 300 FROM unnest($1::text[]) AS name
           RETURNING id, type)
INSERT INTO outbox SELECT id, 0, 'default', 0, now() FROM t
"""


async def test_an_exit_that_a_handler_lets_loose_ends_its_attempt_and_nothing_else(
    processes: Processes, database: Database, rabbitmq: VirtualHost, tmp_path: Path
) -> None:
    (tmp_path / "exiting_tasks.py").write_text(HANDLERS)
    processes.environment |= {
        "BOBRAI_DATABASE_URL": database.url,
        "BOBRAI_RABBITMQ_URL": rabbitmq.url,
        "BOBRAI_HANDLERS": "exiting_tasks",
        "BOBRAI_LOG_FORMAT": "json",
    }
    processes.start("dispatcher")
    worker = processes.start("worker")
    await database.execute(_SUBMIT, ["neighbour"] * 3)

    async def rows(where: str) -> list[dict[str, Any]]:
        return await database.fetch(f"SELECT type, status, attempt, result, errors FROM tasks WHERE {where}")

    await eventually(lambda: _all(rows("type = 'neighbour' AND status = 'processing'"), 3), 30)
    await database.execute(_SUBMIT, list(ENDS))
    await eventually(lambda: _all(rows("type <> 'neighbour' AND finished_at IS NOT NULL"), len(ENDS)), 30)
    ended = {row["type"]: row for row in await rows("type <> 'neighbour'")}
    told = {
        name: (row["status"], error["type"] if (error := _last(row)) is not None else None)
        for name, row in ended.items()
    }
    assert told == ENDS
    (tmp_path / "gate").touch()
    await eventually(lambda: _all(rows("type = 'neighbour' AND status = 'done' AND attempt = 1"), 3), 30)
    assert worker.is_running()
    assert any(line["event"] == "process.loop_interrupted" for line in worker.log_events())


async def _all(rows: Any, count: int) -> bool:
    return len(await rows) == count


def _last(row: dict[str, Any]) -> dict[str, Any] | None:
    errors: list[dict[str, Any]] = json.loads(row["errors"])
    return errors[-1] if errors else None
