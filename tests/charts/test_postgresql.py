"""The bundled PostgreSQL: rendered script and settings on a real server, from an empty volume to a promoted replica."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.charts.helm import render
from tests.charts.postgresql import AWKWARD, Server, connected
from tests.charts.quantities import quantity
from tests.support.eventually import eventually
from tests.support.run_folder import RunFolder

REPLICA = {"postgresql": {"replica": {"enabled": True}}}


@pytest.fixture(scope="module")
def server(run_folder: RunFolder) -> Iterator[Server]:
    """A server that came up from an empty volume, with a replica's role."""
    server = Server(run_folder, values=REPLICA)
    server.prepare()
    server.start()
    yield server
    server.stop()


async def test_the_application_owns_its_database_and_nothing_else(server: Server) -> None:
    async with connected(server.address()) as connection:
        role = await connection.fetchrow("SELECT * FROM pg_roles WHERE rolname = current_user")
        owner = await connection.fetchval("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'bobrai'")
        await connection.execute("CREATE TABLE owned (id int); DROP TABLE owned")
        assert role is not None
        powers = ("rolsuper", "rolcreaterole", "rolcreatedb", "rolreplication", "rolbypassrls")
        assert [name for name in powers if role[name]] == []
        assert owner == "bobrai"


async def test_a_stop_refuses_writes_before_it_cuts_anything_off(run_folder: RunFolder) -> None:
    """A write that fails then says that it was not done."""
    server = Server(run_folder)
    server.prepare()
    server.start()
    clients, written = 8, 0
    failures: list[BaseException] = []
    async with connected(server.address()) as connection:
        await connection.execute("CREATE TABLE written (id int)")

    async def write() -> None:
        nonlocal written
        try:
            async with connected(server.address()) as connection:
                while True:
                    await connection.execute("INSERT INTO written VALUES (1)")
                    written += 1
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            failures.append(error)

    try:
        writers = [asyncio.create_task(write()) for _ in range(clients)]
        await eventually(lambda: written > 10 * clients)
        await asyncio.to_thread(server.stop)
        await asyncio.gather(*writers)
        assert [type(failure) for failure in failures] == [asyncpg.ReadOnlySQLTransactionError] * clients
        server.prepare()
        server.start()
        async with connected(server.address()) as connection:
            assert await connection.fetchval("SELECT count(*) FROM written") == written
            await connection.execute("INSERT INTO written VALUES (2)")
    finally:
        server.stop()


async def test_a_stop_that_was_cut_off_leaves_no_server_that_refuses_writes(run_folder: RunFolder) -> None:
    server = Server(run_folder)
    server.prepare()
    server.start()
    try:
        async with connected(server.superuser()) as connection:
            await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        (server.pod.volume("data") / "refuses-writes").touch()
        assert server.process is not None
        server.process.kill()
        server.process.wait_gone(timeout=20)
        server.prepare()
        server.start()
        async with connected(server.address()) as connection:
            await connection.execute("CREATE TABLE written (id int)")
    finally:
        server.stop()


async def test_the_monitor_reads_statistics_and_no_tasks(server: Server) -> None:
    async with connected(server.address()) as connection:
        await connection.execute("CREATE TABLE secret (id int)")
    async with connected(server.address("bobrai_monitor", "monitoring" + AWKWARD)) as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_stat_user_tables WHERE relname = 'secret'") == 1
        hidden = "SELECT count(*) FROM pg_stat_activity WHERE query = '<insufficient privilege>'"
        assert await connection.fetchval(hidden) == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM secret")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE own (id int)")


async def test_the_rendered_settings_are_in_force(server: Server) -> None:
    async with connected(server.superuser()) as connection:
        found = dict(await connection.fetch("SELECT name, current_setting(name) FROM pg_settings"))
        wrong = await connection.fetch("SELECT * FROM pg_file_settings WHERE error IS NOT NULL")
        statements = await connection.fetchval("SELECT count(*) FROM pg_stat_statements")
        checksums, provider = await connection.fetchrow(
            "SELECT current_setting('data_checksums'), datlocprovider FROM pg_database WHERE datname = 'bobrai'"
        )
    assert wrong == []
    assert found["jit"] == "off"
    assert found["max_connections"] == "200"
    assert found["shared_buffers"] == "256MB", "a quarter of the memory limit"
    assert found["listen_addresses"] == "127.0.0.1"
    assert statements > 0
    assert (checksums, provider) == ("on", b"b"), "collations must not change with the image's C library"


async def test_the_superuser_is_known_inside_the_pod_only(server: Server) -> None:
    rules = server.rendered.one("ConfigMap", "bobrai-postgresql").body["data"]["pg_hba.conf"].split("\n")
    mine = [line.split() for line in rules if line and not line.startswith("#") and "postgres" in line.split()]
    assert [rule[3] for rule in mine[1:]] == ["127.0.0.1/32", "::1/128", "all"]
    assert mine[-1][-1] == "reject"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(**server.address(password="wrong"))


async def test_passwords_follow_the_secret_at_the_next_start(run_folder: RunFolder) -> None:
    server = Server(run_folder)
    server.prepare()
    said = server.prepare(APPLICATION_PASSWORD="another", SUPERUSER_PASSWORD="yet another")
    assert "making a database" not in said
    server.start()
    try:
        async with connected(server.address(password="another")):
            pass
        async with connected(server.address("postgres", "yet another", "postgres")) as connection:
            leaked = await connection.fetchval("SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%PASSWORD%'")
            assert leaked == 0
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(**server.address())
    finally:
        server.stop()


def test_a_killed_first_start_leaves_nothing_half_made(run_folder: RunFolder) -> None:
    server = Server(run_folder)
    data = server.pod.volume("data")
    broken = server.pod.run("prepare", APPLICATION_USER="postgres")
    assert broken.returncode == 1
    assert "must not be the superuser" in broken.stderr
    unfinished = data / "18" / "docker.incomplete"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    for folder in (unfinished, data / "18"):
        folder.chmod(0o777)
    (unfinished / "PG_VERSION").chmod(0o666)
    assert "making a database" in server.prepare()


@pytest.mark.parametrize(
    ("place", "version", "words"),
    [
        ("18/docker", "17", "was written by PostgreSQL 17"),
        ("17/docker", "17", "holds a database of PostgreSQL 17"),
        ("data", "16", "holds a database of PostgreSQL 16"),
        (".", "15", "holds a database of PostgreSQL 15"),
    ],
)
def test_a_volume_of_another_version_is_refused(run_folder: RunFolder, place: str, version: str, words: str) -> None:
    server = Server(run_folder)
    folder = server.pod.volume("data") / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "PG_VERSION").write_text(f"{version}\n")
    done = server.pod.run("prepare")
    assert done.returncode == 1
    assert words in done.stderr
    assert _files(server.pod.volume("data")) == [f"{place}/PG_VERSION".removeprefix("./")]


async def test_a_replica_streams_and_is_copied_anew_when_its_log_is_gone(run_folder: RunFolder, server: Server) -> None:
    replica = Server(run_folder, values=REPLICA, name="bobrai-postgresql-replica", primary=server)
    assert "copying" in replica.prepare()
    assert "copying" not in replica.prepare(), "a restart copies nothing"
    replica.start()
    try:
        async with connected(server.address()) as connection:
            await connection.execute("CREATE TABLE streamed AS SELECT generate_series(1, 1000) AS id")
        await eventually(lambda: _count(replica, "streamed"), message="the rows arrive")
        async with connected(replica.address()) as connection:
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await connection.execute("CREATE TABLE refused (id int)")
        replica.stop()
        async with connected(server.superuser()) as connection:
            slot = await connection.fetchval("SELECT slot_name FROM pg_replication_slots")
            assert slot == "bobrai_postgresql_replica_0"
            await connection.execute("SELECT pg_drop_replication_slot($1)", slot)
        assert "does not hold our log" in replica.prepare()
        replica.start()
        assert await _count(replica, "streamed") == 1000
        promoted = replica.pod.execute("postgresql", "pg_ctl", "promote")
        assert promoted.returncode == 0, promoted.stderr
        await eventually(lambda: _writable(replica), message="the promoted replica takes writes")
        replica.stop()
        assert "promoted" in replica.prepare(), "what was promoted is never overwritten"
        replica.start()
        assert await _count(replica, "streamed") == 1000
    finally:
        replica.stop()


def test_a_replica_waits_for_its_primary_with_the_secrets_password() -> None:
    container = render(REPLICA).one("StatefulSet", "bobrai-postgresql-replica").container("prepare")
    wanted = {
        entry["name"]: entry.get("valueFrom", {}).get("secretKeyRef", {}).get("key") for entry in container["env"]
    }
    assert wanted["REPLICATION_PASSWORD"] == "replication-password"


@pytest.mark.parametrize("memory", ["512Mi", "1Gi", "4G", "32Gi"])
@pytest.mark.parametrize("disk", ["1Gi", "10Gi", "1Ti"])
def test_sizes_follow_from_the_memory_limit_and_the_volume(memory: str, disk: str) -> None:
    values = {"postgresql": {"resources": {"limits": {"memory": memory}}, "storage": {"size": disk}}}
    text = render(values).one("ConfigMap", "bobrai-postgresql").body["data"]["postgresql.conf"]
    found = dict(line.split(" = ") for line in text.splitlines())
    megabytes = {name: int(value.strip("'").removesuffix("MB")) for name, value in found.items() if "MB'" in value}
    limit, volume = quantity(memory) / 2**20, quantity(disk) / 2**20
    assert limit / 5 <= megabytes["shared_buffers"] <= limit / 4
    assert megabytes["shared_buffers"] + megabytes["maintenance_work_mem"] * 3 < limit / 2
    assert megabytes["max_wal_size"] + megabytes["max_slot_wal_keep_size"] <= volume / 2
    assert megabytes["min_wal_size"] < megabytes["max_wal_size"]


def test_values_win_over_the_charts_settings() -> None:
    text = render({"postgresql": {"parameters": {"work_mem": "16MB", "log_line_prefix": "it's "}}})
    settings = text.one("ConfigMap", "bobrai-postgresql").body["data"]["postgresql.conf"]
    assert "work_mem = '16MB'\n" in settings
    assert "log_line_prefix = 'it''s '\n" in settings


async def _count(server: Server, table: str) -> int:
    async with connected(server.address()) as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def _writable(server: Server) -> bool:
    async with connected(server.address()) as connection:
        return not await connection.fetchval("SELECT pg_is_in_recovery()")


def _files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
