"""bobrAI under measurement: its own commands as processes, on a database and RabbitMQ queues of their own.

In: the servers. Out: a port to send load to, process ids to measure, and a look into the tables that costs next to
nothing. All settings are the product's defaults, but for what a measurement is about.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.bench.servers import Servers
from tests.support.processes import Process

POLL_SECONDS = 0.02
ROUND_SECONDS = 300.0

_numbers = itertools.count(1)


class Product:
    """The running service; use `open_product`."""

    def __init__(
        self, servers: Servers, database_url: str, connection: asyncpg.Connection, settings: Mapping[str, str]
    ) -> None:
        self.servers = servers
        self.connection = connection
        """For the measurement's own queries; its server process counts as PostgreSQL's."""
        self.running: dict[str, Process] = {}
        self.environment = {
            "BOBRAI_DATABASE_URL": database_url,
            "BOBRAI_RABBITMQ_URL": servers.rabbitmq.url,
            "BOBRAI_RABBITMQ_QUEUE_PREFIX": f"bench-{next(_numbers)}.",
            **settings,
        }
        """Of its processes."""

    def start(self, *commands: str) -> None:
        """Start some of api, dispatcher and worker, and wait until they are ready."""
        for command in commands:
            process = self.servers.processes.start(command, environment=self.environment)
            self.running[command] = process

    @property
    def port(self) -> int:
        """Where the API answers."""
        port = self.running["api"].port
        if port is None:
            raise RuntimeError("the API has no port")
        return port

    def own_pids(self) -> dict[str, int]:
        """The product's processes."""
        return {name: process.pid for name, process in self.running.items()}

    def pids(self) -> dict[str, int]:
        """Everything that works for a task: the product's processes and the servers."""
        return self.own_pids() | self.servers.pids()

    async def last_id(self) -> int:
        """The highest task id so far."""
        return await self.connection.fetchval("SELECT coalesce(max(id), 0) FROM tasks")  # type: ignore[no-any-return]

    async def wait_settled(self) -> float:
        """Wait until no due task is left and return the moment when that was seen; looks every 20 ms."""
        async with asyncio.timeout(ROUND_SECONDS):
            while await self.connection.fetchval(_UNSETTLED):
                await asyncio.sleep(POLL_SECONDS)
        return time.time()

    async def verify(self, after_id: int, count: int, type_: str = "echo") -> None:
        """Raise when the tasks after this id are not `count` different ones, each done with its payload as result."""
        row = await self.connection.fetchrow(_VERIFY, after_id, type_)
        if row is None or tuple(row) != (count, count, count, 0):
            raise ValueError(
                f"expected {count} tasks done with the right result; (all, done, different payloads, outbox): {row}"
            )

    async def settle_servers(self) -> None:
        """Begin a round with as little left over from the last one as a quiet service has."""
        await self.connection.execute("VACUUM (ANALYZE) tasks")
        await self.connection.execute("VACUUM (ANALYZE) outbox")
        await self.connection.execute("CHECKPOINT")

    async def stop(self) -> None:
        """Drain and end all processes; one that does not end well is an error."""
        for process in self.running.values():
            process.terminate()
        for name, process in self.running.items():
            if (code := await process.exited()) != 0:
                raise RuntimeError(f"{name} ended with {code}:\n{process.log_tail()}")
        self.running.clear()


_UNSETTLED = """
SELECT EXISTS (SELECT FROM tasks WHERE status = 'pending' AND queue = 'default' AND run_at <= now())
    OR EXISTS (SELECT FROM tasks WHERE status = 'processing')
"""

_VERIFY = """
SELECT count(*), count(*) FILTER (WHERE status = 'done' AND attempt = 1 AND result::jsonb = payload::jsonb),
       count(DISTINCT payload ->> 'n'), (SELECT count(*) FROM outbox WHERE task_id > $1 AND due_at <= now())
FROM tasks WHERE id > $1 AND type = $2
"""


@asynccontextmanager
async def open_product(servers: Servers, settings: Mapping[str, str] | None = None) -> AsyncIterator[Product]:
    """A migrated database with no process on it yet; at the end of the block all is stopped and dropped."""
    url = await servers.create_database()
    migrate = servers.processes.start("migrate", environment={"BOBRAI_DATABASE_URL": url})
    if await migrate.exited(60) != 0:
        raise RuntimeError(f"the migration failed:\n{migrate.log_tail()}")
    # a look at what is left must not read whole tables, which would count as PostgreSQL's work for the tasks
    connection = await asyncpg.connect(url, server_settings={"enable_seqscan": "off"})
    product = Product(servers, url, connection, settings or {})
    try:
        yield product
        await product.stop()
    finally:
        for process in product.running.values():
            if process.is_running():
                process.kill()
        await connection.close()
        await servers.drop_database(url)


async def run_client(servers: Servers, module: str, *arguments: object, python: str = sys.executable) -> dict[str, Any]:
    """Run one of our client processes to its end and return what it reports."""
    answer = servers.answer_file()
    command = [python, "-m", module, *map(str, arguments), str(answer)]
    client = servers.processes.run(command, name=module.rpartition(".")[2])
    while client.is_running():
        await asyncio.sleep(POLL_SECONDS)
    if client.exit_code != 0:
        raise RuntimeError(f"{module} ended with {client.exit_code}:\n{client.log_tail()}")
    result: dict[str, Any] = json.loads(answer.read_text())
    return result
