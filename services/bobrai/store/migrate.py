"""Brings the schema to this release's version, or says that it is not there yet.

In: a direct DSN, never a pooler's: the advisory lock belongs to a session. Out: a schema at head. Revisions are plain
SQL under ``migrations/versions``, numbered 0001, 0002, …; a schema newer than this code is accepted, because releases
only expand what their predecessor needs.
"""

import re
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from bobrai.domain.errors import ConfigurationError, DatabaseUnavailable, SchemaMissing
from bobrai.store.connecting import Connector
from bobrai.store.pool import driver_errors

_LOCK = 0x626F627261690001  # "bobrai", then this lock's number; any constant that nobody else uses
_CONNECT_TIMEOUT_SECONDS = 5.0
_MAKE_ONE = "make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and set BOBRAI_DATABASE_URL to it"


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

    Raises DatabaseUnavailable, and ConfigurationError for a database that cannot be ours.
    """
    with driver_errors():
        try:
            connection = await Connector(url)(timeout=_CONNECT_TIMEOUT_SECONDS, command_timeout=5.0)
        except asyncpg.FeatureNotSupportedError as error:
            raise ConfigurationError(f"the database cannot speak UTF-8 ({error}); {_MAKE_ONE}") from error
        try:
            encoding = await connection.fetchval("SHOW server_encoding")
            if encoding != "UTF8":
                name = await connection.fetchval("SELECT current_database()")
                raise ConfigurationError(
                    f"the database {name!r} has the encoding {encoding}, which cannot store every text; {_MAKE_ONE}"
                )
            if not await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL"):
                return ""
            found = str(await connection.fetchval("SELECT max(version_num) FROM alembic_version") or "")
            if found:
                _must_be_ours(found, has_tables=await connection.fetchval("SELECT to_regclass('tasks') IS NOT NULL"))
            return found
        finally:
            await connection.close(timeout=5.0)


def _must_be_ours(revision: str, *, has_tables: bool) -> None:
    if not re.fullmatch(r"\d{4}", revision):
        raise ConfigurationError(
            f"the table alembic_version holds {revision!r}, which is another application's: give bobrAI a database, "
            "or a schema of its own by a search_path in which the other's is not"
        )
    if not has_tables:
        raise ConfigurationError(
            f"the schema is said to be at revision {revision}, but its tables are gone: restore them, or "
            "DROP TABLE alembic_version and run `bobrai migrate`"
        )


async def check(url: str) -> None:
    """Raise SchemaMissing when the schema is older than this release; and else as ``version`` does."""
    found = await version(url)
    if found < head():
        raise SchemaMissing(f"the schema is at revision {found or 'none'} and {head()} is needed: run `bobrai migrate`")


async def migrate(url: str) -> bool:
    """Upgrade the schema to head; returns whether anything was to do. Any number of processes may call it at once.

    Raises DatabaseUnavailable when the database cannot be reached or refuses, and ConfigurationError as ``version``.
    """
    if await version(url) >= head():
        return False
    try:
        return await _migrate(url)
    except SchemaMissing as error:  # its message is for those who wait for us
        raise DatabaseUnavailable(f"the migration was refused: {error.__cause__}", error.sqlstate) from error
    except CommandError as error:
        raise ConfigurationError(f"the schema cannot be migrated: {error}") from error


async def _migrate(url: str) -> bool:
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
