"""A real PostgreSQL that asks for a password takes one with any character, from its own variable."""

import re
from pathlib import Path

import asyncpg
import pytest

from bobrai.domain.errors import DatabaseUnavailable
from bobrai.settings import DatabaseSettings
from bobrai.store import migrate
from bobrai.store.listener import Listener
from bobrai.store.pool import Database
from tests.support.postgres import PostgresServer

USER = "me@home"
PASSWORD = "p@ss/w:rd %\"'"


@pytest.fixture
async def locked(private_postgres: PostgresServer) -> str:
    """The address, without credentials, of a server that asks our user for its password."""
    connection = await asyncpg.connect(private_postgres.url())
    quoted = PASSWORD.replace("'", "''")
    await connection.execute(f"CREATE USER \"{USER}\" SUPERUSER PASSWORD '{quoted}'")
    rules = Path(await connection.fetchval("SHOW hba_file"))
    rules.write_text(f'host all "{USER}" 127.0.0.1/32 scram-sha-256\n{rules.read_text()}')
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()
    return re.sub("//[^@]*@", "//", private_postgres.url())


def settings(monkeypatch: pytest.MonkeyPatch, url: str, password: str) -> DatabaseSettings:
    monkeypatch.setenv("BOBRAI_DATABASE_URL", url)
    monkeypatch.setenv("BOBRAI_DATABASE_USER", USER)
    monkeypatch.setenv("BOBRAI_DATABASE_PASSWORD", password)
    return DatabaseSettings()


async def test_any_password_opens_the_database_for_pool_migration_and_listener(
    locked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = settings(monkeypatch, locked, PASSWORD)
    database = Database(granted, pool_size=1)
    await database.open()
    assert (await database.fetch("SELECT current_user::text AS name"))[0]["name"] == USER
    await database.close()

    assert await migrate.migrate(granted.direct()) is True
    await migrate.check(granted.direct())

    listener = Listener(granted.direct(), "news", timeout_seconds=5)
    await listener.open(lambda: None, lambda: None)
    await listener.check()
    listener.close()


async def test_a_wrong_password_is_refused(locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(settings(monkeypatch, locked, "wrong"), pool_size=1)
    await database.open()
    with pytest.raises(DatabaseUnavailable, match="InvalidPassword"):
        await database.ping()
    await database.close()
