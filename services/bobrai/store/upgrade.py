"""Runs the migrations with Alembic, one process at a time; loaded only where there is something to do.

In: a direct DSN and the revision to reach. Out: a schema at that revision. What decides that it is needed, and why the
DSN is direct: `migrate.py`.
"""

from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from bobrai.domain.errors import ConfigurationError
from bobrai.store.connecting import Connector
from bobrai.store.migrate import CONNECT_TIMEOUT_SECONDS
from bobrai.store.pool import driver_errors

_LOCK = 0x626F627261690001  # "bobrai", then this lock's number; any constant that nobody else uses


async def to(head: str, url: str) -> bool:
    """Upgrade the schema to this revision, under a lock; returns whether anything was left to do.

    Raises DatabaseUnavailable or SchemaMissing when the server refuses, ConfigurationError when Alembic does.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        # The driver reads the DSN itself, so that every form it knows works here too.
        async_creator=lambda: Connector(url)(timeout=CONNECT_TIMEOUT_SECONDS),
    )
    with driver_errors():
        try:
            async with engine.connect() as connection:
                changed = await connection.run_sync(_upgrade, head)
                await connection.commit()
                return changed
        except DBAPIError as error:
            raise _driver_error(error) from error
        except CommandError as error:
            raise ConfigurationError(f"the schema cannot be migrated: {error}") from error
        finally:
            await engine.dispose()


def _driver_error(error: DBAPIError) -> BaseException:
    """Return what the driver raised, which SQLAlchemy has wrapped twice."""
    cause: BaseException = error
    while not isinstance(cause, asyncpg.PostgresError | asyncpg.InterfaceError | OSError) and cause.__cause__:
        cause = cause.__cause__
    return cause


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection, head: str) -> bool:
    connection.execute(text("SET lock_timeout = '5min'"))
    connection.execute(text(f"SELECT pg_advisory_lock({_LOCK})"))
    connection.commit()
    try:
        config = _config()
        config.attributes["connection"] = connection
        before = _revision(connection)
        if before >= head:
            return False
        # A change of the schema must not queue behind a long query and stop everybody else behind itself.
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.commit()
        command.upgrade(config, head)
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
