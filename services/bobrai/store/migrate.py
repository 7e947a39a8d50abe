"""Brings the schema to this release's version, or waits until somebody else has.

In: a direct DSN, never a pooler's: the advisory lock belongs to a session. Out: a schema at head. Revisions are plain
SQL under ``migrations/versions``, numbered 0001, 0002, …; a schema newer than this code is accepted, because releases
only expand what their predecessor needs.
"""

import asyncio
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from bobrai.domain.errors import ConfigurationError, DatabaseUnavailable
from bobrai.store.connecting import Connector
from bobrai.store.pool import driver_errors

_LOCK = 0x626F627261690001  # "bobrai", then this lock's number; any constant that nobody else uses
_CONNECT_TIMEOUT_SECONDS = 5.0


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    return config


def head() -> str:
    """Return the newest revision that this code knows."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


async def version(url: str) -> str:
    """Return the schema's revision, an empty string before the first one.

    Raises DatabaseUnavailable, and ConfigurationError for a database that cannot hold every text.
    """
    with driver_errors():
        connection = await Connector(url)(timeout=_CONNECT_TIMEOUT_SECONDS, command_timeout=5.0)
        try:
            encoding = await connection.fetchval("SHOW server_encoding")
            if encoding != "UTF8":
                name = await connection.fetchval("SELECT current_database()")
                raise ConfigurationError(
                    f"the database {name!r} has the encoding {encoding}, which cannot store every text; make one "
                    "with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and set BOBRAI_DATABASE_URL to it"
                )
            if not await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL"):
                return ""
            return str(await connection.fetchval("SELECT max(version_num) FROM alembic_version") or "")
        finally:
            await connection.close(timeout=5.0)


async def migrate(url: str) -> bool:
    """Upgrade the schema to head; returns whether anything was to do. Any number of processes may call it at once.

    Raises DatabaseUnavailable when the database cannot be reached or refuses, and ConfigurationError as ``version``.
    """
    if await version(url) >= head():
        return False
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        # The driver reads the DSN itself, so that every form it knows works here too.
        async_creator=lambda: Connector(url)(timeout=_CONNECT_TIMEOUT_SECONDS),
    )
    with driver_errors():
        try:
            async with engine.connect() as connection:
                changed = await connection.run_sync(_upgrade)
                await connection.commit()
                return changed
        except DBAPIError as error:
            raise _driver_error(error) from error
        finally:
            await engine.dispose()


def _driver_error(error: DBAPIError) -> BaseException:
    """Return what the driver raised, which SQLAlchemy has wrapped twice."""
    cause: BaseException = error
    while not isinstance(cause, asyncpg.PostgresError | asyncpg.InterfaceError | OSError) and cause.__cause__:
        cause = cause.__cause__
    return cause


def _upgrade(connection: Connection) -> bool:
    connection.execute(text("SET lock_timeout = '5min'"))
    connection.execute(text(f"SELECT pg_advisory_lock({_LOCK})"))
    connection.commit()
    try:
        config = _config()
        config.attributes["connection"] = connection
        before = _revision(connection)
        if before >= head():
            return False
        # A change of the schema must not queue behind a long query and stop everybody else behind itself.
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.commit()
        command.upgrade(config, "head")
        connection.commit()
        return True
    finally:
        connection.rollback()
        connection.execute(text(f"SELECT pg_advisory_unlock({_LOCK})"))
        connection.commit()


def _revision(connection: Connection) -> str:
    present = connection.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar()
    found = connection.execute(text("SELECT max(version_num) FROM alembic_version")).scalar() if present else ""
    connection.commit()
    return str(found or "")


async def wait_for_schema(url: str, *, poll_seconds: float = 1.0) -> None:
    """Return once the schema is at head or newer; waits out a database that is away."""
    wanted = head()
    while True:
        try:
            if await version(url) >= wanted:
                return
        except DatabaseUnavailable:
            pass  # the caller's log says that we wait; a database that is not up yet is what waiting is for
        await asyncio.sleep(poll_seconds)
