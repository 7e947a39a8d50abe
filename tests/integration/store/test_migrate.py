"""Any number of processes may bring the schema to head at once, older code accepts a newer one, and waiting waits."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bobrai.cli import schema
from bobrai.domain.errors import ConfigurationError, DatabaseUnavailable
from bobrai.domain.task import TaskType
from bobrai.settings import Settings, load
from bobrai.store import migrate, task_types, tasks, upgrade, workers
from bobrai.telemetry.logs import captured as capture_logs
from tests.integration.store.builders import relayed, submitted
from tests.integration.store.conftest import opened
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase
from tests.support.databases import with_database
from tests.support.eventually import eventually

PROGRAM = "import asyncio, sys; from bobrai.store import migrate; print(asyncio.run(migrate.migrate(sys.argv[1])))"


async def usable(url: str) -> bool:
    """Whether a task can be submitted."""
    store = await opened(url)
    try:
        return len(await submitted(store)) == 1
    finally:
        await store.close()


async def test_ten_processes_migrate_at_once_and_one_does_the_work(empty_database: OwnDatabase) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, empty_database.url], stdout=subprocess.PIPE, text=True)
        for _ in range(10)
    ]
    printed = [await asyncio.to_thread(process.communicate, timeout=50) for process in processes]
    assert [process.returncode for process in processes] == [0] * 10
    assert sorted(out.strip() for out, _ in printed) == ["False"] * 9 + ["True"]
    assert await migrate.version(empty_database.url) == migrate.head()
    assert await usable(empty_database.url)


async def test_a_second_run_changes_nothing(database: OwnDatabase) -> None:
    assert await migrate.migrate(database.url) is False
    assert await migrate.version(database.url) == migrate.head()


async def test_a_schema_newer_than_this_code_is_accepted(database: OwnDatabase) -> None:
    """During a rollout the new release migrates first, and processes of the old one restart after that."""
    await database.execute("UPDATE alembic_version SET version_num = '9999'")
    assert await migrate.migrate(database.url) is False
    await migrate.check(database.url)
    assert await migrate.version(database.url) == "9999"
    assert await usable(database.url)


async def test_rows_of_the_first_schema_are_kept_and_go_on(empty_database: OwnDatabase) -> None:
    """What was running is taken back as it was, with the attempts that it had left."""
    first = Path(migrate.__file__).with_name("migrations") / "versions" / "0001_initial.sql"
    await empty_database.execute(first.read_text())
    await empty_database.execute(
        "CREATE TABLE alembic_version (version_num varchar(32)); INSERT INTO alembic_version VALUES ('0001');"
        "INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds, status, attempt, worker_id,"
        " finished_at) SELECT 'echo', 'default', '1', 3, '{}', 300, status, attempt, 77, finished_at FROM (VALUES"
        " ('pending', 0, NULL), ('processing', 3, NULL), ('failed', 3, now())) AS rows (status, attempt, finished_at)"
    )
    assert await migrate.migrate(empty_database.url) is True
    store = await opened(empty_database.url)
    try:
        assert [row["status"] for row in await workers.take_back(store)] == ["pending"]
        await tasks.replay(store, 3, by=SOMEBODY)
        rows = await store.fetch(
            "SELECT status, attempt, attempts_before, max_attempts, losses, snoozes FROM tasks ORDER BY id"
        )
    finally:
        await store.close()
    assert [tuple(row) for row in rows] == [
        ("pending", 0, 0, 3, 0, 0),
        ("pending", 3, 1, 4, 1, 0),
        ("pending", 3, 3, 6, 0, 0),
    ]


async def test_a_database_with_tasks_gets_the_function_that_submits(empty_database: OwnDatabase) -> None:
    (function,) = (Path(migrate.__file__).with_name("migrations") / "versions").glob("*_submit.sql")
    await upgrade.to(f"{int(function.name[:4]) - 1:04}", empty_database.url)
    store = await opened(empty_database.url)
    try:
        await submitted(store)
        await task_types.announce(store, [TaskType(name="echo")])
        assert await migrate.migrate(empty_database.url) is True
        await store.fetch("SELECT bobrai_submit('echo', '1')")
        assert len(await relayed(store)) == 2
    finally:
        await store.close()


async def test_waiting_says_why_and_ends_when_somebody_else_has_migrated(empty_database: OwnDatabase) -> None:
    with capture_logs() as logs:
        waiting = asyncio.ensure_future(schema.wait_for_head(settings_of(empty_database.url)))
        await eventually(lambda: any(line["event"] == "database.awaited" for line in logs))
        assert not waiting.done()
        await migrate.migrate(empty_database.url)
        await asyncio.wait_for(waiting, 10)
    said = [line["error"] for line in logs if line["event"] == "database.awaited"]
    assert said[0] == f"the schema is at revision none and {migrate.head()} is needed: run `bobrai migrate`"
    # a look between two revisions is one more
    assert all(line.endswith(f"and {migrate.head()} is needed: run `bobrai migrate`") for line in said)
    assert len(said) == len(set(said)), "each reason once"


def settings_of(url: str) -> Settings:
    return load(database={"url": url})


@pytest.mark.parametrize(
    ("revision", "says"),
    [
        ("ae1027a6acf", "another application's"),
        ("1", "another application's"),
        ("0001", "its tables are gone"),
        (migrate.head(), "its tables are gone"),
    ],
)
async def test_a_revision_that_cannot_be_ours_is_said_in_one_line(
    empty_database: OwnDatabase, revision: str, says: str
) -> None:
    await empty_database.execute(
        f"CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('{revision}')"
    )
    for command in (migrate.migrate, migrate.check):
        with pytest.raises(ConfigurationError, match=says) as raised:
            await command(empty_database.url)
        assert "\n" not in str(raised.value)


async def test_a_revision_that_nobody_knows_is_said_in_one_line(database: OwnDatabase) -> None:
    await database.execute("UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(ConfigurationError, match="cannot be migrated: Can't locate revision identified by '0000'"):
        await migrate.migrate(database.url)


async def test_what_refuses_a_migration_is_not_told_to_migrate(empty_database: OwnDatabase) -> None:
    name = urlsplit(empty_database.url).path.strip("/")
    await empty_database.execute(f"ALTER DATABASE {name} SET search_path = ''")
    with pytest.raises(DatabaseUnavailable, match="no schema has been selected to create in") as raised:
        await migrate.migrate(empty_database.url)
    assert "bobrai migrate" not in str(raised.value)


async def test_a_database_that_is_away_is_waited_for_or_reported(free_port: object) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"  # type: ignore[operator]
    with pytest.raises(DatabaseUnavailable):
        await migrate.migrate(url)
    waiting = asyncio.ensure_future(schema.wait_for_head(settings_of(url)))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    waiting.cancel()


async def test_a_migration_that_fails_leaves_nothing_behind(
    empty_database: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole revision is one transaction: the next run starts from the beginning."""
    await empty_database.execute("CREATE TABLE idempotency_keys (in_the_way int)")
    with pytest.raises(Exception, match="idempotency_keys"):
        await migrate.migrate(empty_database.url)
    assert await empty_database.fetchval("SELECT to_regclass('tasks') IS NULL")
    await empty_database.execute("DROP TABLE idempotency_keys")
    assert await migrate.migrate(empty_database.url) is True


def test_revisions_are_numbered_plain_sql_beside_their_module() -> None:
    folder = Path(migrate.__file__).with_name("migrations") / "versions"
    modules = sorted(path.stem for path in folder.glob("*.py"))
    assert modules == sorted(path.stem for path in folder.glob("*.sql"))
    assert [name.split("_")[0] for name in modules] == [f"{number:04}" for number in range(1, len(modules) + 1)]
    assert migrate.head() == modules[-1].split("_")[0]


@pytest.mark.parametrize("arguments", [[], ["--wait"]], ids=["migrate", "wait"])
async def test_a_database_that_cannot_store_every_text_is_refused_in_one_line(
    empty_database: OwnDatabase, arguments: list[str]
) -> None:
    async with encoded(empty_database, "LATIN1") as name:
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "bobrai", "migrate", *arguments],
            env={**os.environ, "BOBRAI_DATABASE_URL": with_database(empty_database.url, name)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0].startswith(f"bobrai: the database {name!r} has the encoding LATIN1")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "EUC_JP", "MULE_INTERNAL"])
async def test_so_is_every_other_encoding(empty_database: OwnDatabase, encoding: str) -> None:
    async with encoded(empty_database, encoding) as name:
        with pytest.raises(ConfigurationError, match="ENCODING 'UTF8'"):
            await migrate.check(with_database(empty_database.url, name))


@asynccontextmanager
async def encoded(database: OwnDatabase, encoding: str) -> AsyncIterator[str]:
    """A database with this encoding; its name."""
    name = f"{database.name}_{encoding.lower()}"
    await database.execute(
        f"CREATE DATABASE \"{name}\" ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    try:
        yield name
    finally:
        await database.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def test_a_role_that_may_not_migrate_is_told_so(empty_database: OwnDatabase) -> None:
    role = f"{empty_database.name}_reader"
    await empty_database.execute(f'CREATE ROLE "{role}" LOGIN')
    try:
        with pytest.raises(DatabaseUnavailable, match="InsufficientPrivilegeError 42501"):
            await migrate.migrate(re.sub("//[^@]*@", f"//{role}@", empty_database.url))
    finally:
        await empty_database.execute(f'DROP ROLE "{role}"')
