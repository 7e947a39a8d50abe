"""Proves the ground that the other tests stand on: each server, fixture and fault, on the real thing."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import aio_pika.abc
import asyncpg
import psutil
import pytest

from tests.support.databases import Database
from tests.support.eventually import NeverHappened, eventually, eventually_sync, stays
from tests.support.pgbouncer import PgBouncerServer
from tests.support.postgres import PostgresServer
from tests.support.processes import Processes
from tests.support.rabbitmq import VirtualHost
from tests.support.rabbitmq_cluster import RabbitCluster
from tests.support.rabbitmq_management import QueueCounts
from tests.support.reaper import is_alive
from tests.support.run_folder import RunFolder
from tests.support.tcp_proxy import TcpProxy

REPOSITORY = Path(__file__).parents[1]
MakeProxy = Callable[[str, int], TcpProxy]


# --- waiting -----------------------------------------------------------------------------------------------------


async def test_eventually_returns_the_first_true_value() -> None:
    values = iter([0, None, "", "there"])
    assert await eventually(lambda: next(values)) == "there"


async def test_eventually_counts_an_exception_as_not_yet() -> None:
    outcomes = iter([OSError("refused"), OSError("refused"), True])

    async def ask() -> bool:
        outcome = next(outcomes)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    assert await eventually(ask)


async def test_eventually_reports_the_last_value() -> None:
    with pytest.raises(NeverHappened, match=r"not within 0\.05 s: seven comes; last value \[\]"):
        await eventually(list, 0.05, message="seven comes")


async def test_eventually_reports_and_chains_the_last_exception() -> None:
    def ask() -> bool:
        raise ConnectionRefusedError("nobody home")

    with pytest.raises(NeverHappened, match="ConnectionRefusedError: nobody home") as caught:
        await eventually(ask, 0.05)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    with pytest.raises(NeverHappened, match="ConnectionRefusedError: nobody home"):
        eventually_sync(ask, 0.05)


async def test_eventually_cuts_off_an_answer_that_hangs() -> None:
    started = time.monotonic()
    with pytest.raises(NeverHappened, match="TimeoutError"):
        await eventually(asyncio.Event().wait, 0.1)
    assert time.monotonic() - started < 2


async def test_stays_fails_as_soon_as_the_condition_is_broken() -> None:
    await stays(lambda: True, 0.05)
    answers = iter([True, True, False])
    with pytest.raises(AssertionError, match="did not stay true"):
        await stays(lambda: next(answers), 5)


# --- PostgreSQL and PgBouncer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_number", [1, 2])
async def test_every_test_has_a_database_of_its_own(database: Database, round_number: int) -> None:
    assert await database.fetchval("SELECT to_regclass('public.mark') IS NULL")
    await database.execute("CREATE TABLE mark (round int)")


async def test_database_has_the_products_schema(database: Database, empty_database: Database) -> None:
    assert await database.fetchval("SELECT to_regclass('public.tasks') IS NOT NULL")
    assert await empty_database.fetchval("SELECT to_regclass('public.tasks') IS NULL")


async def test_pooled_url_pools_transactions_and_tracks_prepared_statements(database: Database) -> None:
    clients = 30
    backends: set[int] = set()

    async def use_one_statement_often() -> None:
        async with database.connect(pooled=True) as connection:
            for number in range(10):
                query = "SELECT $1::int, pg_backend_pid(), txid_current()"
                row = await connection.fetchrow(query, number)
                assert row is not None
                assert row[0] == number
                backends.add(row[1])

    await asyncio.gather(*(use_one_statement_often() for _ in range(clients)))
    assert len(backends) <= 20, "more server connections than the pool has: not pooled by transaction"
    assert len(backends) < clients


async def test_private_postgres_can_be_killed_and_started(private_postgres: PostgresServer) -> None:
    connection = await asyncpg.connect(private_postgres.url())
    await connection.execute("CREATE TABLE kept (n int)")
    private_postgres.kill()
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.fetchval("SELECT 1")
    assert not private_postgres.answers()
    private_postgres.start()
    again = await asyncpg.connect(private_postgres.url())
    assert await again.fetchval("SELECT count(*) FROM kept") == 0
    await again.close()
    private_postgres.restart("immediate")
    assert private_postgres.answers()


async def test_private_postgres_can_be_frozen(private_postgres: PostgresServer) -> None:
    connection = await asyncpg.connect(private_postgres.url())
    private_postgres.freeze()
    query = asyncio.create_task(connection.fetchval("SELECT 1"))
    await stays(lambda: not query.done(), 0.3)
    private_postgres.thaw()
    assert await query == 1
    await connection.close()


async def test_private_pgbouncer_can_be_restarted(private_pgbouncer: PgBouncerServer) -> None:
    url = private_pgbouncer.url("postgres")
    connection = await asyncpg.connect(url)
    private_pgbouncer.restart()
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.fetchval("SELECT 1")
    again = await asyncpg.connect(url)
    assert await again.fetchval("SELECT 1") == 1
    await again.close()


# --- RabbitMQ ----------------------------------------------------------------------------------------------------


async def _publish(url: str, queue: str, count: int) -> None:
    """Publish confirmed messages to a quorum queue that is declared here."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue(queue, durable=True, arguments={"x-queue-type": "quorum"})
        for number in range(count):
            message = aio_pika.Message(str(number).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, routing_key=queue)


async def _keep_unacked(message: aio_pika.abc.AbstractIncomingMessage) -> None:
    """Take a delivery and never answer it."""


@pytest.mark.parametrize("round_number", [1, 2])
async def test_every_test_has_a_virtual_host_of_its_own(rabbitmq: VirtualHost, round_number: int) -> None:
    assert rabbitmq.queues() == {}
    await _publish(rabbitmq.url, "letters", round_number)
    await eventually(lambda: rabbitmq.queue("letters").ready == round_number)


async def test_queue_counts_tell_ready_unacked_and_consumers(rabbitmq: VirtualHost) -> None:
    await _publish(rabbitmq.url, "letters", 5)
    connection = await aio_pika.connect(rabbitmq.url)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=2)
        queue = await channel.get_queue("letters", ensure=False)
        await queue.consume(_keep_unacked)
        await eventually(lambda: rabbitmq.queue("letters") == QueueCounts("letters", "quorum", 3, 2, 1))
        assert rabbitmq.queue("letters").total == 5
    await eventually(lambda: rabbitmq.queue("letters").ready == 5)
    rabbitmq.purge()
    await eventually(rabbitmq.is_empty)


async def test_broker_can_cut_the_connections_of_one_test(rabbitmq: VirtualHost) -> None:
    connection = await aio_pika.connect(rabbitmq.url)
    closed = asyncio.Event()
    connection.close_callbacks.add(lambda *_: closed.set())
    await eventually(lambda: rabbitmq.close_connections() == 1)
    await asyncio.wait_for(closed.wait(), 5)
    await connection.close()


async def test_cluster_survives_the_loss_and_return_of_a_node(rabbitmq_cluster: RabbitCluster) -> None:
    cluster = rabbitmq_cluster
    names = sorted(node.name for node in cluster.nodes)
    assert len(names) == 3
    await _publish(cluster.urls[0], "letters", 3)
    assert cluster.management.queue_members(cluster.name, "letters") == names

    cluster.nodes[0].kill()
    assert not cluster.nodes[0].is_running()
    await eventually(lambda: cluster.management.running_nodes() == names[1:], 20)
    await _publish(cluster.urls[1], "letters", 2)
    await eventually(lambda: cluster.queue("letters").ready == 5)

    cluster.nodes[0].start()
    await eventually(lambda: cluster.management.running_nodes() == names, 20)


async def test_cluster_keeps_messages_when_all_nodes_are_killed(rabbitmq_cluster: RabbitCluster) -> None:
    await _publish(rabbitmq_cluster.urls[2], "letters", 4)
    await eventually(lambda: rabbitmq_cluster.queue_is_on_disk("letters"))
    rabbitmq_cluster.restart_all()
    await eventually(lambda: rabbitmq_cluster.queue("letters").ready == 4, 20)


# --- the proxy ---------------------------------------------------------------------------------------------------


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


@asynccontextmanager
async def _listening(answer: Answer) -> AsyncIterator[tuple[str, int]]:
    """A server that answers each connection so, and leaves nothing open; gives its host and port."""
    answered: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered.append(asyncio.current_task())
        try:
            await answer(reader, writer)
        except OSError:
            writer.transport.abort()
        finally:
            writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*answered), 5)


@pytest.fixture
async def echo_address() -> AsyncIterator[tuple[str, int]]:
    """Host and port of a server that answers every line with itself."""
    async with _listening(_echo) as address:
        yield address


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> bytes:
    writer.write(line)
    return await asyncio.wait_for(reader.readline(), 5)


async def test_proxy_passes_cuts_and_refuses(tcp_proxy: MakeProxy, echo_address: tuple[str, int]) -> None:
    proxy = tcp_proxy(*echo_address)
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    assert await _exchange(reader, writer, b"one\n") == b"one\n"
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.readline(), 5)
    writer.close()

    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    assert await _exchange(reader, writer, b"two\n") == b"two\n"
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(proxy.host, proxy.port)

    proxy.pass_through()
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    assert await _exchange(reader, writer, b"three\n") == b"three\n"
    assert (proxy.accepted, proxy.open_connections) == (3, 1)
    writer.close()
    await eventually(lambda: proxy.open_connections == 0)


async def test_proxy_blackhole_holds_bytes_and_connections_back(
    tcp_proxy: MakeProxy, echo_address: tuple[str, int]
) -> None:
    proxy = tcp_proxy(*echo_address)
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    assert await _exchange(reader, writer, b"before\n") == b"before\n"
    proxy.blackhole()
    writer.write(b"held\n")
    late_reader, late_writer = await asyncio.open_connection(proxy.host, proxy.port)
    late_writer.write(b"late\n")
    answers = [asyncio.create_task(reader.readline()), asyncio.create_task(late_reader.readline())]
    await stays(lambda: not any(answer.done() for answer in answers), 0.2)
    proxy.pass_through()
    assert await asyncio.wait_for(asyncio.gather(*answers), 5) == [b"held\n", b"late\n"]
    writer.close()
    late_writer.close()
    await eventually(lambda: proxy.open_connections == 0)


async def test_proxy_latency_delays_without_reordering(tcp_proxy: MakeProxy, echo_address: tuple[str, int]) -> None:
    proxy = tcp_proxy(*echo_address)
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    proxy.latency(0.1)
    started = time.monotonic()
    writer.writelines(f"{number}\n".encode() for number in range(200))
    lines = [await asyncio.wait_for(reader.readline(), 5) for _ in range(200)]
    took = time.monotonic() - started
    assert lines == [f"{number}\n".encode() for number in range(200)]
    assert 0.2 <= took < 2, "the delay is per byte on the way, not per chunk in a row"
    writer.close()
    await eventually(lambda: proxy.open_connections == 0)


async def test_proxy_half_close_ends_one_direction(tcp_proxy: MakeProxy) -> None:
    received = asyncio.get_running_loop().create_future()

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.readline())
        writer.write(b"nobody hears this\n")
        await writer.drain()

    async with _listening(collect) as address:
        proxy = tcp_proxy(*address)
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        await eventually(lambda: proxy.open_connections == 1)
        proxy.half_close()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.write(b"still sent\n")
        assert await asyncio.wait_for(received, 5) == b"still sent\n"
        writer.close()
        await eventually(lambda: proxy.open_connections == 0)


async def test_proxy_stands_before_postgres(database: Database, tcp_proxy: MakeProxy) -> None:
    port = int(database.url.rpartition(":")[2].partition("/")[0])
    proxy = tcp_proxy("127.0.0.1", port)
    connection = await asyncpg.connect(proxy.url(database.url))
    assert await connection.fetchval("SELECT current_database()") == database.name
    proxy.cut()
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.fetchval("SELECT 1")


# --- processes ---------------------------------------------------------------------------------------------------


def _is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and is_alive(psutil.Process(pid))


def _script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_process_is_signalled_and_its_exit_code_read(processes: Processes) -> None:
    process = processes.run(_script("import time; print('up', flush=True); time.sleep(60)"), name="sleeper")
    eventually_sync(lambda: "up" in process.log_text())
    process.freeze()
    assert process.is_running()
    process.thaw()
    process.terminate()
    assert process.wait(5) == -signal.SIGTERM


async def test_process_children_die_with_it(processes: Processes) -> None:
    parent = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    process = processes.run(_script(parent), name="parent")
    child = int(await eventually(lambda: process.log_text().strip()))
    process.kill()
    assert await process.exited() == -signal.SIGKILL
    assert not _is_alive(child)


def test_process_sees_the_tests_environment_and_no_other_settings(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOBRAI_LOG_LEVEL", "stray")
    processes.environment["BOBRAI_DATABASE_URL"] = "postgresql://given"
    code = "import os; print(sorted(v for v in os.environ if v.startswith('BOBRAI_')))"
    process = processes.run(_script(code), name="environment")
    assert process.wait(10) == 0
    assert process.log_text().strip() == "['BOBRAI_DATABASE_URL']"


# --- the run itself ----------------------------------------------------------------------------------------------


def test_ports_are_given_once_and_free(free_port: Callable[[], int]) -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def _pytest(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run pytest on a folder's own tests with our fixtures, as a run of its own."""
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BOBRAI_TEST", "PYTEST"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", str(folder), *arguments],
        capture_output=True, text=True, check=False, cwd=folder, timeout=50,
        env={**clean, "PYTHONPATH": str(REPOSITORY), **environment},
    )  # fmt: skip


def test_missing_server_fails_its_tests_loudly(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(rabbitmq): pass\n")
    nowhere = {"PATH": str(tmp_path), "DOCKER_HOST": "unix:///nowhere"}
    run = _pytest(tmp_path, **nowhere)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "SERVER MISSING: ITS TESTS FAILED" in run.stdout
    assert "rabbitmq >= 4.0 could not be had:" in run.stdout

    allowed = _pytest(tmp_path, BOBRAI_TEST_ALLOW_MISSING="rabbitmq", **nowhere)
    assert allowed.returncode == 0, allowed.stdout + allowed.stderr
    assert "TESTS NOT RUN, AS ALLOWED" in allowed.stdout
    assert "1 skipped" in allowed.stdout


def test_servers_end_with_their_run_even_when_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os, signal\n"
        "def test_it(database, run_folder):\n"
        f"    open({str(tmp_path / 'run')!r}, 'w').write(str(run_folder.path))\n"
        f"    open({str(tmp_path / 'started')!r}, 'w').write((run_folder.path / 'started.jsonl').read_text())\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = _pytest(tmp_path)
    assert run.returncode == -signal.SIGKILL, run.stdout + run.stderr
    assert (tmp_path / "started").read_text()
    folder = Path((tmp_path / "run").read_text())
    eventually_sync(lambda: not folder.exists(), 20, message="the run's folder is removed once its servers are gone")
    pids = [
        int(line.partition('"pid": ')[2].partition(",")[0]) for line in (tmp_path / "started").read_text().splitlines()
    ]
    assert not any(_is_alive(pid) for pid in pids)


def test_servers_named_in_the_environment_are_used(database: Database, rabbitmq: VirtualHost, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import asyncpg\n"
        "async def test_it(database, rabbitmq, run_folder):\n"
        "    async with database.connect(pooled=True) as connection:\n"
        "        assert await connection.fetchval('SELECT current_database()') == database.name\n"
        "    assert rabbitmq.queues() == {}\n"
        "    assert not (run_folder.path / 'started.jsonl').exists()\n"
    )
    run = _pytest(
        tmp_path,
        BOBRAI_TEST_DATABASE_URL=database.url,
        BOBRAI_TEST_PGBOUNCER_URL=database.pooled_url,
        BOBRAI_TEST_RABBITMQ_URL=rabbitmq.url,
        BOBRAI_TEST_RABBITMQ_MANAGEMENT_URL=rabbitmq.management.url,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_interrupted_run_stops_its_servers(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os, signal\n"
        "def test_it(database, run_folder):\n"
        f"    open({str(tmp_path / 'run')!r}, 'w').write(str(run_folder.path))\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    run = _pytest(tmp_path)
    assert run.returncode == pytest.ExitCode.INTERRUPTED, run.stdout + run.stderr
    assert not Path((tmp_path / "run").read_text()).exists()


def test_worker_processes_share_what_is_made_once(run_folder: RunFolder) -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return 7

    name = f"once-test-{run_folder.free_port()}"
    assert [run_folder.once(name, make), run_folder.once(name, make)] == [7, 7]
    assert made == [1]
    read = (
        "import sys; from tests.support.run_folder import RunFolder; print(RunFolder.current().once(sys.argv[1], exit))"
    )
    done = subprocess.run(
        [sys.executable, "-c", read, name], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "7"
