"""Fresh databases for tests, copied from a template that holds the migrated schema.

Creating and dropping run on one administrator's connection per worker process, in a thread of its own, so that sync and
async tests are served alike. Next: `servers.py` says on which server they lie.
"""

import importlib
import inspect
import itertools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.support.background import BackgroundLoop
from tests.support.run_folder import RunFolder

MIGRATE_SECONDS = 60.0


class Database:
    """One test's own database."""

    def __init__(self, name: str, url: str, pooled_url: Callable[[str], str]) -> None:
        self.name = name
        self.url = url
        self._pooled_url = pooled_url

    @property
    def pooled_url(self) -> str:
        """The way through PgBouncer in transaction mode; the pooler is started when first asked for."""
        return self._pooled_url(self.name)

    @asynccontextmanager
    async def connect(self, *, pooled: bool = False, **options: Any) -> AsyncIterator[asyncpg.Connection]:
        """A connection that is closed at the end of the block."""
        connection = await asyncpg.connect(self.pooled_url if pooled else self.url, **options)
        try:
            yield connection
        finally:
            await connection.close(timeout=5)

    async def execute(self, statement: str, *arguments: Any) -> str:
        """Run one statement on a connection of its own."""
        async with self.connect() as connection:
            return str(await connection.execute(statement, *arguments))

    async def fetch(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """All rows of a query, as dictionaries."""
        async with self.connect() as connection:
            return [dict(row) for row in await connection.fetch(query, *arguments)]

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        async with self.connect() as connection:
            return await connection.fetchval(query, *arguments)


class Databases:
    """Makes and drops databases on one server."""

    def __init__(self, run: RunFolder, admin_url: str, pooled_url: Callable[[str], str]) -> None:
        self._run = run
        self._admin_url = admin_url
        self._pooled_url = pooled_url
        self._loop = BackgroundLoop("databases")
        self._connection: asyncpg.Connection | None = None
        self._numbers = itertools.count(1)
        self._prefix = f"{run.path.name.replace('-', '_').lower()}_{os.getpid()}"

    def create(self, *, migrated: bool = True) -> Database:
        """A new database, with the product's schema or empty."""
        template = self._template() if migrated else "template0"
        name = f"{self._prefix}_{next(self._numbers)}"
        # a third of the time of the default strategy, which writes every page to the log
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return Database(name, with_database(self._admin_url, name), self._pooled_url)

    def drop(self, database: Database) -> None:
        """Drop it, cutting the connections that it still has."""
        self._execute(f'DROP DATABASE IF EXISTS "{database.name}" WITH (FORCE)')

    def close(self) -> None:
        """Close the administrator's connection and its thread."""
        if self._connection is not None:
            self._loop.run(self._connection.close())
        self._loop.close()

    def _template(self) -> str:
        return str(self._run.once("database-template", self._make_template))

    def _make_template(self) -> str:
        name = f"{self._prefix}_template"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        self._loop.run(migrate(with_database(self._admin_url, name)), timeout=MIGRATE_SECONDS)
        self._execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false')
        return name

    def _execute(self, statement: str) -> None:
        self._loop.run(self._execute_async(statement))

    async def _execute_async(self, statement: str) -> None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._admin_url)
        await self._connection.execute(statement)


async def migrate(url: str) -> None:
    """Bring a database to the product's current schema."""
    module = importlib.import_module("bobrai.store.migrate")
    done = module.migrate(url)
    if inspect.isawaitable(done):
        await done


def with_database(url: str, name: str) -> str:
    """The same address with another database in it."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
