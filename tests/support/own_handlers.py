"""Processes with handlers that a test has written, and tasks for them that go straight into the database.

In: the text of a module. Out: a dispatcher that runs, and an environment in which workers find the module.
"""

import json
from pathlib import Path

from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.processes import Processes
from tests.support.rabbitmq import VirtualHost


def with_handlers(processes: Processes, database: Database, rabbitmq: VirtualHost, module: Path, text: str) -> None:
    """Write the module into the folder that workers start in, give processes their addresses, start a dispatcher."""
    module.write_text(text)
    processes.environment |= {
        "BOBRAI_DATABASE_URL": database.url,
        "BOBRAI_RABBITMQ_URL": rabbitmq.url,
        "BOBRAI_HANDLERS": module.stem,
        "BOBRAI_LOG_FORMAT": "json",
    }
    processes.start("dispatcher")


async def submit(
    database: Database,
    type_: str,
    payload: object = None,
    *,
    count: int = 1,
    queue: str = "default",
    max_attempts: int = 1,
    timeout_seconds: float = 300.0,
) -> list[int]:
    """Store alike tasks that are due now, and return their ids."""
    rows = await database.fetch(
        "WITH t AS (INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds) "
        "SELECT $1, $2, $3::text::json, $4, $5::text::json, $6 FROM generate_series(1, $7) RETURNING id), "
        "o AS (INSERT INTO outbox SELECT id, 0, $2, 0, now() FROM t) SELECT id FROM t",
        type_, queue, json.dumps(payload), max_attempts, json.dumps({"max_attempts": max_attempts}), timeout_seconds,
        count,
    )  # fmt: skip
    return [row["id"] for row in rows]


async def reached(database: Database, ids: list[int], *statuses: str, timeout: float = 20) -> None:
    """Wait until all of these tasks have one of the statuses."""

    async def there() -> bool:
        query = "SELECT count(*) FROM tasks WHERE id = ANY($1) AND status = ANY($2)"
        return bool(await database.fetchval(query, ids, list(statuses)) == len(ids))

    await eventually(there, timeout, message=f"{len(ids)} tasks are {' or '.join(statuses)}")
