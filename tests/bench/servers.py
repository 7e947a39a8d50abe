"""The servers of a measuring run: a durable PostgreSQL with default settings, a default RabbitMQ, and fresh databases.

In: nothing. Out: addresses and process ids. All of it ends with the run, however that ends (`tests/support/reaper.py`).
Next: `product.py` runs bobrAI on them, `peers/` the others.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from tests.bench.rabbitmq import RabbitMQ
from tests.support.databases import with_database
from tests.support.postgres import PostgresServer
from tests.support.processes import Processes
from tests.support.reaper import Reaper
from tests.support.run_folder import RunFolder

# what the tests' server has differently goes back to PostgreSQL's defaults; fsync and full_page_writes stay on
POSTGRES_DEFAULTS = {"wal_level": "replica", "max_wal_senders": "10", "max_wal_size": "1GB", "max_connections": "100"}


class Servers:
    """PostgreSQL and RabbitMQ, shared by all measurements of a run."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.folder = run.folder("bench")
        self.processes = Processes(run, self.folder)
        self.postgres = PostgresServer.create(run, "postgres-bench", durable=True, settings=POSTGRES_DEFAULTS)
        self.rabbitmq = RabbitMQ(run)
        self._numbers = itertools.count(1)

    def pids(self) -> dict[str, int]:
        """The process at the top of each server."""
        process = self.postgres._process.process()
        if process is None:
            raise RuntimeError(f"PostgreSQL has ended:\n{self.postgres.log_tail()}")
        return {"postgres": process.pid, "rabbitmq": self.rabbitmq.pid}

    async def create_database(self) -> str:
        """The address of a new, empty database."""
        name = f"bench_{next(self._numbers)}"
        connection = await asyncpg.connect(self.postgres.url())
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return with_database(self.postgres.url(), name)

    async def drop_database(self, url: str) -> None:
        """Drop a database, cutting what is still connected."""
        connection = await asyncpg.connect(self.postgres.url())
        try:
            await connection.execute(f'DROP DATABASE "{url.rpartition("/")[2]}" WITH (FORCE)')
        finally:
            await connection.close()

    def answer_file(self) -> Path:
        """A path for what a client process reports."""
        return self.folder / f"answer-{next(self._numbers)}.json"


@contextmanager
def open_servers() -> Iterator[Servers]:
    """Start the servers; at the end of the block everything that the run started is stopped."""
    run = RunFolder.create()
    reaper = Reaper(run)
    try:
        servers = Servers(run)
        try:
            yield servers
        finally:
            servers.processes.close()
    finally:
        reaper.finish()
