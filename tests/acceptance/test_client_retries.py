"""The client's requests through a way that loses answers: no task is doubled, and none is lost."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from bobrai.client import AsyncClient, Client, ConnectionFailed
from tests.support.databases import Database
from tests.support.eventually import eventually, eventually_sync
from tests.support.processes import Process, Processes
from tests.support.tcp_proxy import TcpProxy

MakeProxy = Callable[[str, int], TcpProxy]
SUBMITS = 400
CUTS = 25


def way_to(process: Process, tcp_proxy: MakeProxy) -> TcpProxy:
    """A proxy before an API."""
    assert process.port is not None
    return tcp_proxy("127.0.0.1", process.port)


async def stored(database: Database) -> Counter[int]:
    """How often each payload was stored."""
    return Counter(row["n"] for row in await database.fetch("SELECT payload::text::int AS n FROM tasks"))


def cut_again_and_again(proxy: TcpProxy) -> int:
    """Cut whatever is under way while answers are on their way; returns how many connections were cut."""
    total = 0
    for _ in range(CUTS):
        proxy.latency(0.05)  # what is cut now was carried out, and nobody heard of it
        eventually_sync(lambda: proxy.open_connections, 30)
        time.sleep(0.07)  # the fault itself: the time in which requests get to the API and no answer comes back
        total += proxy.cut()
        proxy.latency(0)
        time.sleep(0.04)
    return total


async def test_answers_that_are_lost_double_no_task(
    announced: Database, processes: Processes, tcp_proxy: MakeProxy
) -> None:
    proxy = way_to(processes.start("api"), tcp_proxy)
    with Client(f"http://127.0.0.1:{proxy.port}", "") as client, ThreadPoolExecutor(9) as threads:
        cutting = threads.submit(cut_again_and_again, proxy)
        singles = [threads.submit(client.submit, "echo", n) for n in range(SUBMITS)]
        many = [
            threads.submit(client.submit_many, "echo", range(start, start + 50))
            for start in range(SUBMITS, SUBMITS + 1000, 50)
        ]
        ids = [each.result().id for each in singles]
        ids += [handle.id for each in many for handle in each.result()]
        while not cutting.done():  # also what comes at the last cut
            ids.append(client.submit("echo", len(ids)).id)
        assert cutting.result() >= CUTS
    assert len(set(ids)) == len(ids)
    assert await stored(announced) == Counter(range(len(ids)))


async def test_coroutines_double_no_task_either(
    announced: Database, processes: Processes, tcp_proxy: MakeProxy
) -> None:
    proxy = way_to(processes.start("api"), tcp_proxy)
    cutting = asyncio.create_task(asyncio.to_thread(cut_again_and_again, proxy))
    ids: list[int] = []
    async with AsyncClient(f"http://127.0.0.1:{proxy.port}", "") as client:
        while not cutting.done() or len(ids) < SUBMITS:
            numbers = range(len(ids), len(ids) + 50)
            ids += [each.id for each in await asyncio.gather(*(client.submit("echo", n) for n in numbers))]
        assert await cutting >= CUTS
    assert len(set(ids)) == len(ids)
    assert await stored(announced) == Counter(range(len(ids)))


async def test_an_api_that_restarts_is_waited_for(announced: Database, processes: Processes) -> None:
    first = processes.start("api")
    with Client(first.url, "") as client:
        assert await asyncio.to_thread(client.submit, "echo", 0)
        first.kill()
        await first.exited()
        waiting = asyncio.create_task(asyncio.to_thread(client.submit, "echo", 1))
        processes.start("api", port=first.port)
        assert (await waiting).id
    assert await stored(announced) == Counter([0, 1])


async def test_a_full_queue_is_waited_for_as_long_as_it_says(announced: Database, processes: Processes) -> None:
    api = processes.start("api", environment={"BOBRAI_API_REFRESH_SECONDS": "0.2"})
    with Client(api.url, "") as client:
        client.put_queue("small", max_backlog=0)
        began = time.monotonic()
        waiting = asyncio.create_task(asyncio.to_thread(client.submit, "echo", 1, queue="small"))
        await eventually(lambda: b'status="429"} 1' in api.get("/metrics")[1], message="it was refused once")
        await asyncio.to_thread(client.put_queue, "small", max_backlog=10)
        assert (await waiting).id
        assert time.monotonic() - began >= 5.0  # its Retry-After


def test_nobody_there_is_told_after_the_deadline() -> None:
    with Client("http://127.0.0.1:9", "", deadline=0.5) as client:
        began = time.monotonic()
        with pytest.raises(ConnectionFailed, match=r"no answer from http://127\.0\.0\.1:9: .*refused"):
            client.submit("echo", 1)
        assert time.monotonic() - began < 5


async def test_an_api_that_says_nothing_is_told_after_the_deadline_and_nothing_is_stored_twice(
    announced: Database, processes: Processes, tcp_proxy: MakeProxy
) -> None:
    proxy = way_to(processes.start("api"), tcp_proxy)
    url = f"http://127.0.0.1:{proxy.port}"
    proxy.blackhole()
    began = time.monotonic()
    with Client(url, "", timeout=30, deadline=1) as hasty, pytest.raises(ConnectionFailed) as told:
        await asyncio.to_thread(hasty.submit, "echo", 7)
    assert time.monotonic() - began < 15
    proxy.pass_through()  # also what was held back
    with Client(url, "") as client:
        key = told.value.idempotency_key
        ids = {(await asyncio.to_thread(client.submit, "echo", 7, idempotency_key=key)).id for _ in range(2)}
    assert len(ids) == 1
    assert await stored(announced) == Counter({7: 1})
