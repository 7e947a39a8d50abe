"""Proves the faults that the other tests inject: the TCP proxy, and signals to processes."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.support.databases import Database
from tests.support.eventually import eventually, eventually_sync, stays
from tests.support.processes import Processes
from tests.support.reaper import is_alive_pid
from tests.support.tcp_proxy import TcpProxy

MakeProxy = Callable[[str, int], TcpProxy]


# --- the proxy -----------------------------------------------------------------------------------------------------


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


# --- processes -----------------------------------------------------------------------------------------------------


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
    assert not is_alive_pid(child)


def test_process_sees_the_tests_environment_and_no_other_settings(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOBRAI_LOG_LEVEL", "stray")
    processes.environment["BOBRAI_DATABASE_URL"] = "postgresql://given"
    code = "import os; print(sorted(v for v in os.environ if v.startswith('BOBRAI_')))"
    process = processes.run(_script(code), name="environment")
    assert process.wait(10) == 0
    assert process.log_text().strip() == "['BOBRAI_DATABASE_URL']"
