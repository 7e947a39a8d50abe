"""The chart's PgBouncer: the rendered ini and start script on the real program, before a PostgreSQL of the chart."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bobrai.settings import load
from bobrai.store import pool
from bobrai.store.pool import Database
from tests.charts.containers import Pod, Programs
from tests.charts.helm import CI, CRD_APIS, Rendered, ci_shapes, refusal, render
from tests.charts.postgresql import AWKWARD, SECRETS, SERVICE, Server
from tests.support.eventually import eventually
from tests.support.pgbouncer import accepts_connections
from tests.support.run_folder import RunFolder
from tests.support.server_process import ServerProcess
from tests.support.tcp_proxy import TcpProxy

CLIENTS = 50
RESERVED = 3  # superuser_reserved_connections
FOR_OTHERS = 20  # LISTEN, migrations, backups, people


@dataclass(frozen=True)
class Pooler:
    """One running pod."""

    pod: Pod
    process: ServerProcess
    port: int

    def address(self, **changes: Any) -> dict[str, Any]:
        """Arguments for `asyncpg.connect`."""
        given = {"host": "127.0.0.1", "port": self.port, "user": "bobrai", "password": AWKWARD, "database": "bobrai"}
        return {**given, "timeout": 10, **changes}


@pytest.fixture(scope="module")
def pooler(run_folder: RunFolder) -> Iterator[Pooler]:
    """A pod of the Deployment before a server of the StatefulSet, with settings as YAML writes them."""
    parameters = {
        "postgresql": {"parameters": {"work_mem": 16_384, "enable_memoize": False}},
        "pgbouncer": {"parameters": {"max_packet_size": 1_000_000, "application_name_add_host": False}},
    }
    server = Server(run_folder, values=parameters)
    server.prepare()
    server.start()
    found = start_pooler(run_folder, server)
    yield found
    found.process.kill()
    server.stop()


def start_pooler(run: RunFolder, server: Server) -> Pooler:
    port = run.free_port()
    replace = {
        f"host={SERVICE} port=5432": f"host=127.0.0.1 port={server.port}",
        "listen_port = 6432": f"listen_port = {port}",
        "listen_addr = *": "listen_addr = 127.0.0.1",
    }
    manifest = server.rendered.one("Deployment", "bobrai-pgbouncer")
    pod = Pod(run, Programs(run, "pgbouncer", "pgbouncer"), server.rendered, manifest, secrets=SECRETS, replace=replace)
    process = pod.start("pgbouncer")
    process.wait_ready(lambda: accepts_connections(port), timeout=10)
    return Pooler(pod, process, port)


async def test_fifty_clients_keep_their_prepared_statements(pooler: Pooler) -> None:
    async def client(number: int) -> int:
        connection = await asyncpg.connect(**pooler.address())
        try:
            # the texts are shared by some clients and not by others, as those of several versions would be
            statement = await connection.prepare(f"SELECT $1::int + {number % 7} AS sum, pg_backend_pid()")
            found = 0
            for step in range(20):
                async with connection.transaction():
                    found += await statement.fetchval(step) - step - number % 7
            return found
        finally:
            await connection.close()

    assert await asyncio.gather(*map(client, range(CLIENTS))) == [0] * CLIENTS
    statistics = await asyncpg.connect(**pooler.address(), statement_cache_size=0)
    servers = await statistics.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = 'bobrai'")
    await statistics.close()
    assert servers <= 20, "many clients share few connections"


async def test_settings_of_ones_own_are_what_the_servers_use(pooler: Pooler) -> None:
    connection = await asyncpg.connect(**pooler.address())
    shown = [await connection.fetchval(f"SHOW {name}") for name in ("work_mem", "enable_memoize")]
    await connection.close()
    assert shown == ["16MB", "off"]
    config = await _console(pooler, "SHOW CONFIG")
    line = next(line for line in config.splitlines() if line.strip().startswith("max_packet_size"))
    assert line.split("|")[1].strip() == "1000000"


async def test_a_wrong_password_is_refused(pooler: Pooler) -> None:
    with pytest.raises(asyncpg.PostgresError, match="SASL authentication failed"):
        await asyncpg.connect(**pooler.address(password="wrong"))


async def test_the_statistics_user_reads_statistics_and_no_data(pooler: Pooler) -> None:
    user = {"user": "pgbouncer_stats", "password": "stats" + AWKWARD, "statement_cache_size": 0}
    with pytest.raises(asyncpg.PostgresError):
        await asyncpg.connect(**pooler.address(**user))
    pools = await _console(pooler, "SHOW POOLS")
    assert "bobrai" in pools
    assert "admin access needed" in await _console(pooler, "PAUSE")


async def test_passwords_stay_out_of_the_settings_and_on_no_disk(pooler: Pooler) -> None:
    settings = render().one("ConfigMap", "bobrai-pgbouncer").body["data"]["pgbouncer.ini"]
    assert "password" not in settings
    users = pooler.pod.volume("users") / "userlist.txt"
    assert users.stat().st_mode & 0o077 == 0
    volumes = {volume["name"]: volume for volume in (pooler.pod.manifest.pod or {})["volumes"]}
    assert volumes["users"]["emptyDir"]["medium"] == "Memory"


async def test_a_client_finishes_after_the_pod_was_told_to_stop(run_folder: RunFolder, pooler: Pooler) -> None:
    server = Server(run_folder)
    server.prepare()
    server.start()
    own = start_pooler(run_folder, server)
    try:
        connection = await asyncpg.connect(**own.address())
        own.process.send(signal.SIGTERM)
        await eventually(lambda: not accepts_connections(own.port), message="it takes no new clients")
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
        await eventually(lambda: not own.process.is_running(), message="it ends with its last client")
    finally:
        own.process.kill()
        server.stop()


async def test_processes_that_are_never_idle_leave_a_stopping_pod_and_no_statement_fails(
    run_folder: RunFolder, tcp_proxy: Callable[[str, int], TcpProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod that goes leaves the Service first; what came through it before stays until the client goes."""
    monkeypatch.setattr(pool, "RENEW_SECONDS", 0.5)
    server = Server(run_folder)
    server.prepare()
    server.start()
    old, new = start_pooler(run_folder, server), start_pooler(run_folder, server)
    service = tcp_proxy("127.0.0.1", old.port)
    url = f"postgresql://127.0.0.1:{service.port}/bobrai"
    database = Database(load(database={"url": url, "user": "bobrai", "password": AWKWARD}).database, pool_size=8)
    await database.open()
    answered = under_way = 0
    may_ask = asyncio.Event()

    async def busy() -> None:
        nonlocal answered, under_way
        while old.process.is_running():
            await may_ask.wait()
            under_way += 1
            await database.fetch("SELECT $1::int", answered)
            under_way -= 1
            answered += 1

    try:
        may_ask.set()
        working = asyncio.gather(*(busy() for _ in range(16)))
        await eventually(lambda: answered > 1000, message="all connections lead to the old pod")
        # between the two a pod waits for ten seconds, for whoever is just connecting; here nobody is
        may_ask.clear()
        await eventually(lambda: under_way == 0, message="nobody is connecting")
        service.target = ("127.0.0.1", new.port)
        old.process.send(signal.SIGTERM)
        may_ask.set()
        await asyncio.wait_for(working, 15)
    finally:
        await database.close()
        for process in (old.process, new.process):
            process.kill()
        server.stop()


def test_a_pod_has_time_until_all_processes_have_left_it() -> None:
    deployment = render().one("Deployment", "bobrai-pgbouncer")
    pause = deployment.container("pgbouncer")["lifecycle"]["preStop"]["sleep"]["seconds"]
    leaving = pool.RENEW_SECONDS + pool.IDLE_SECONDS
    assert deployment.pod["terminationGracePeriodSeconds"] >= pause + leaving + 5


def test_it_may_open_a_file_for_each_client(tmp_path: Path) -> None:
    """A host may grant 1024 to a program that does not ask for more, whatever `max_client_conn` says."""
    script = render().one("ConfigMap", "bobrai-pgbouncer").body["data"]["start.sh"]
    (tmp_path / "start.sh").write_text(script.replace("run=/run/bobrai", f"run={tmp_path}"))
    program = tmp_path / "pgbouncer"
    program.write_text("#!/bin/sh\nulimit -n\n")
    program.chmod(0o755)
    command = ["sh", "-c", f"ulimit -n 256; ulimit -S -n 64; exec sh {tmp_path}/start.sh"]
    given = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DATABASE_USER": "bobrai", "DATABASE_PASSWORD": "secret"}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=True, timeout=10)
    assert int(done.stdout) == 256


def test_all_pools_together_fit_the_database() -> None:
    fitting = {shape.name for shape in ci_shapes() if _pools_fit(render(files=[shape], api_versions=CRD_APIS))}
    assert {"default-values.yaml", "production-ha-values.yaml", "single-node-values.yaml"} <= fitting


def _pools_fit(rendered: Rendered) -> bool:
    """Whether both are the chart's own; fails when they do not fit."""
    deployment = rendered.find("Deployment", "bobrai-pgbouncer")
    settings = rendered.find("ConfigMap", "bobrai-postgresql")
    if deployment is None or settings is None:
        return False
    lines = rendered.one("ConfigMap", "bobrai-pgbouncer").body["data"]["pgbouncer.ini"].splitlines()
    ini = dict(line.split(" = ", 1) for line in lines if " = " in line and not line.startswith("#"))
    pods = deployment.spec["replicas"] * 2  # a rollout has old and new ones
    most = int(settings.body["data"]["postgresql.conf"].partition("max_connections = '")[2].partition("'")[0])
    assert int(ini["max_db_connections"]) == int(ini["default_pool_size"]) + int(ini["reserve_pool_size"])
    assert pods * int(ini["max_db_connections"]) + RESERVED + FOR_OTHERS <= most
    return True


def test_pools_that_would_not_fit_are_refused_with_the_numbers() -> None:
    assert "more than postgresql.maxConnections=200" in refusal({"pgbouncer": {"replicas": 10}})


def test_an_external_database_is_reached_with_its_own_names() -> None:
    values = {"postgresql": {"external": {"sslMode": "verify-full", "port": 6000, "database": "tasks"}}}
    rendered = render(values, files=[CI / "external-own-pooler-values.yaml"])
    ini = rendered.one("ConfigMap", "bobrai-pgbouncer").body["data"]["pgbouncer.ini"]
    assert "tasks = host=postgresql.example.com port=6000 dbname=tasks\n" in ini
    assert "server_tls_sslmode = verify-full\n" in ini
    assert "server_tls_ca_file = /etc/ssl/certs/ca-certificates.crt\n" in ini
    assert rendered.find("StatefulSet", "bobrai-postgresql") is None


def test_clients_stay_with_one_pod_so_that_cancels_reach_it() -> None:
    assert render().one("Service", "bobrai-pgbouncer").spec["sessionAffinity"] == "ClientIP"


async def _console(pooler: Pooler, command: str) -> str:
    """What the admin console says to the statistics user; it speaks the simple protocol only, as psql does."""
    process = await asyncio.create_subprocess_exec(
        "psql", "--no-psqlrc", "--host=127.0.0.1", f"--port={pooler.port}", "--username=pgbouncer_stats",
        "--dbname=pgbouncer", "--command", command,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"PGPASSWORD": "stats" + AWKWARD, "PATH": os.environ["PATH"]},
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 15)
    return output.decode()
