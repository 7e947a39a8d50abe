"""Fresh databases for tests, on a server of which nobody keeps anything: copies of one that holds the schema.

In: the address of a development server. Out: a database for a while, in a twentieth of the time of a migration. Any
number of processes may ask at once.
"""

import os
import secrets
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from bobrai.store import migrate

_LOCK = 0x626F6272  # of who makes the template: others would make it too


async def create(server_url: str) -> str:
    """Return the address of a new database with this release's schema; the first call makes the template.

    Raises what ``migrate.migrate`` does, and the driver's errors.
    """
    connection = await _administrator(server_url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        template = await _template(connection, server_url)
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)
        name = f"bobrai_test_{os.getpid()}_{secrets.token_hex(4)}"
        # A third of the time of the default strategy, which writes every page to the log.
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
    finally:
        await connection.close(timeout=5.0)
    return _at(server_url, name)


async def drop(server_url: str, url: str) -> None:
    """Remove a database that ``create`` has made, whoever is connected to it."""
    connection = await _administrator(server_url)
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{urlsplit(url).path[1:]}" WITH (FORCE)')
    finally:
        await connection.close(timeout=5.0)


async def _administrator(server_url: str) -> "asyncpg.Connection[asyncpg.Record]":
    # Always the same database: an advisory lock is one's own in each.
    return await asyncpg.connect(_at(server_url, "postgres"))


async def _template(connection: "asyncpg.Connection[asyncpg.Record]", server_url: str) -> str:
    name = f"bobrai_template_{migrate.head()}"
    if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", name):
        unfinished = f"{name}_{secrets.token_hex(4)}"
        await connection.execute(f"CREATE DATABASE \"{unfinished}\" ENCODING 'UTF8' TEMPLATE template0")
        await migrate.migrate(_at(server_url, unfinished))
        await connection.execute(f'ALTER DATABASE "{unfinished}" RENAME TO "{name}"')
    return name


def _at(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
