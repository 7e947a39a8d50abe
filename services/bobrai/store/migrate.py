"""Brings the schema to this release's version, or says that it is not there yet.

In: a direct DSN, never a pooler's: the advisory lock belongs to a session. Out: a schema at head. Revisions are plain
SQL under ``migrations/versions``, numbered 0001, 0002, …; a schema newer than this code is accepted, because releases
only expand what their predecessor needs.
"""

import re
from pathlib import Path

import asyncpg

from bobrai.domain.errors import ConfigurationError, DatabaseUnavailable, SchemaMissing
from bobrai.store.connecting import Connector
from bobrai.store.pool import driver_errors

CONNECT_TIMEOUT_SECONDS = 5.0
_VERSIONS = Path(__file__).with_name("migrations") / "versions"
_MAKE_ONE = "make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and set BOBRAI_DATABASE_URL to it"


def head() -> str:
    """Return the newest revision that this code knows."""
    return max(path.name[:4] for path in _VERSIONS.glob("[0-9][0-9][0-9][0-9]_*.py"))


async def version(url: str) -> str:
    """Return the schema's revision, an empty string before the first one.

    Raises DatabaseUnavailable, and ConfigurationError for a database that cannot be ours.
    """
    with driver_errors():
        try:
            connection = await Connector(url)(timeout=CONNECT_TIMEOUT_SECONDS, command_timeout=5.0)
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
    # Loading Alembic takes as long as all the rest, and nearly always there is nothing to do: only here, and on every
    # start of a pod.
    from bobrai.store import upgrade

    try:
        return await upgrade.to(head(), url)
    except SchemaMissing as error:  # its message is for those who wait for us
        raise DatabaseUnavailable(f"the migration was refused: {error.__cause__}", error.sqlstate) from error
