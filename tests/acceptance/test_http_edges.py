"""What one client sends hurts no other: slow connections, large and hostile bodies, against an API process of its own.

The memory that the API may take is the chart's limit for its pods, which the test reads from the chart.
"""

import asyncio
import itertools
import json
import re
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import yaml

from bobrai.domain import limits
from tests.charts.quantities import quantity
from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.processes import Process, Processes

TASK = {"payload": "x", "type": "echo"}
BATCH = "/api/v1/tasks/batch"
SIXTEEN_MIB = limits.MAX_BATCH_BODY_BYTES
# Of the API's processor time, so that what else the machine does counts for nothing. Twelve times as much on the clock
# is a silence for whatever reason.
LONGEST_SILENCE_SECONDS = 1.0
LONGEST_ANSWER_SECONDS = 12.0
# Of what one body costs in all, on a machine of any speed: 0.2 where it is taken in steps, 0.9 where it is taken whole.
LARGEST_SHARE = 0.5


@pytest.fixture
def api(announced: Database, processes: Processes) -> Process:
    return processes.start("api")


def chart_limit() -> float:
    """The memory of the chart's API pods, in bytes."""
    values = Path(__file__).parents[2].joinpath("charts/bobrai/values.yaml").read_text(encoding="utf-8")
    return quantity(yaml.safe_load(values)["api"]["resources"]["limits"]["memory"])


def peak_memory(process: Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


class Neighbour:
    """Somebody who asks all the while, and remembers the most of the API's time that passed before an answer."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.answers = 0


@asynccontextmanager
async def neighbour(api: Process) -> AsyncIterator[Neighbour]:
    """Ask for a sign of life, one after the other, until the end of the block; any failure is raised."""
    seen, ends = Neighbour(), asyncio.Event()

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=api.url, timeout=LONGEST_ANSWER_SECONDS) as client:
            while not ends.is_set() or not seen.answers:
                started = api.cpu_seconds()
                answer = await client.get("/livez")
                assert answer.status_code == 200
                seen.longest = max(seen.longest, api.cpu_seconds() - started)
                seen.answers += 1
                with suppress(TimeoutError):
                    await asyncio.wait_for(ends.wait(), 0.01)

    asking = asyncio.create_task(ask())
    yield seen
    ends.set()
    await asking


def filled(item: bytes, count: int) -> bytes:
    """A batch as large as is allowed: of items with as many of these values as fit into one, or ``count`` of them."""
    one = b'{"payload":[' + b",".join([item] * count) + b"]}"
    assert len(one) <= limits.MAX_BODY_BYTES
    return b'{"tasks":[' + b",".join([one] * min(1000, (SIXTEEN_MIB - 20) // (len(one) + 1))) + b"]}"


def records(letter: str) -> bytes:
    """A thousand plain records, one of whose letters decides how much memory the others take as text."""
    item = {"payload": {"name": letter, "text": "y" * 16_000}}
    return json.dumps({"tasks": [item] * 1000}, ensure_ascii=False).encode()


def deep_arrays() -> bytes:
    deep = b"[" + b",".join([b"[" * 198 + b"]" * 198] * 600) + b"]"
    return b'{"tasks":[' + b",".join([b'{"payload":%s}' % deep] * 20) + b"]}"


def unknown_members_of_retry() -> bytes:
    return b'{"tasks":[' + b",".join([b'{"payload":1,"retry":%s}' % unknown_members(22_000)] * 64) + b"]}"


def unknown_members(count: int) -> bytes:
    return b"{" + b",".join(b'"m%d":1' % n for n in range(count)) + b"}"


class Sent(NamedTuple):
    """A body, what a single one is answered with, and how many are sent at once."""

    make: Callable[[], bytes]
    status: int
    times: int


LEGAL = {
    "floats": Sent(lambda: filled(b"0.5", 65_000), 201, 2),
    "objects": Sent(lambda: filled(b"{}", 87_000), 201, 1),
    "deep arrays": Sent(deep_arrays, 201, 2),
    "records": Sent(lambda: records("e"), 201, 4),
    "emoji": Sent(lambda: records("\U0001f600"), 201, 4),
}
HOSTILE = {
    "payloads": Sent(lambda: filled(b'"x"', 65_000).replace(b'{"payload"', b'{"type":"numbers","payload"'), 422, 1),
    "items": Sent(lambda: b'{"tasks":[' + b",".join([b"0"] * 8_000_000) + b"]}", 422, 4),
    "members": Sent(lambda: unknown_members(1_300_000), 422, 4),
    "members of items": Sent(lambda: b'{"tasks":[' + b",".join([unknown_members(22_000)] * 64) + b"]}", 422, 1),
    "members of retry": Sent(unknown_members_of_retry, 422, 2),
    "tasks again and again": Sent(lambda: b"{" + b",".join([b'"tasks":[]'] * 1_500_000) + b"}", 422, 2),
    "brackets": Sent(lambda: b'{"tasks":' + b"[" * 16_000_000, 422, 4),
}


@pytest.mark.parametrize("kinds", [LEGAL, HOSTILE], ids=["legal", "hostile"])
async def test_no_body_keeps_others_waiting_or_takes_more_memory_than_the_chart_gives(
    api: Process, kinds: dict[str, Sent]
) -> None:
    longest, shares = {}, {}
    async with httpx.AsyncClient(base_url=api.url, timeout=60) as client:
        for kind, (make, status, times) in kinds.items():
            body = make()
            assert len(body) <= SIXTEEN_MIB
            before = api.cpu_seconds()
            async with neighbour(api) as other:
                posts = [
                    client.post(BATCH, content=body, headers={"content-type": "application/json"}) for _ in range(times)
                ]
                answers = await asyncio.gather(*posts)
            crowded = [answer for answer in answers if answer.status_code == 503]
            assert len(crowded) < len(answers)
            assert all(answer.headers["retry-after"] for answer in crowded)
            assert {answer.status_code for answer in answers if answer not in crowded} == {status}, kind
            longest[kind] = other.longest
            if times == 1:  # so that no other one's cost hides it
                shares[kind] = other.longest / (api.cpu_seconds() - before)
    assert max(shares.values()) < LARGEST_SHARE, shares
    assert max(longest.values()) < LONGEST_SILENCE_SECONDS, longest
    assert peak_memory(api) < chart_limit()


async def test_half_sent_bodies_keep_nobody_out_and_take_bounded_memory(api: Process) -> None:
    half = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (
        BATCH.encode(), SIXTEEN_MIB,
    ) + b'{"tasks":[' + b" " * (SIXTEEN_MIB - 1_000_000)  # fmt: skip
    writers = []
    sending = set()
    try:
        for _ in range(30):
            _, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(half)
            writers.append(writer)
            sending.add(asyncio.ensure_future(_gone_quietly(writer)))
        async with httpx.AsyncClient(base_url=api.url, timeout=60) as client, neighbour(api) as other:

            async def a_batch_is_accepted() -> bool:
                answer = await client.post("/api/v1/tasks", json=TASK)
                assert answer.status_code == 201  # always: a part of the room is for small ones
                batch = await client.post(BATCH, json={"tasks": [{"payload": "y" * 9000, "type": "echo"}] * 1000})
                assert batch.status_code in {201, 503}
                return batch.status_code == 201

            await eventually(a_batch_is_accepted, timeout=60)
    finally:
        for task in sending:
            task.cancel()
        for writer in writers:
            writer.close()
    assert other.longest < LONGEST_SILENCE_SECONDS
    assert peak_memory(api) < chart_limit()


async def _gone_quietly(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        await writer.drain()


SLOW = {
    "silent": b"",
    "blank": b"\r\n",
    "half a head": b"GET /api/v1/queues HTTP/1.1\r\nhost: localhost\r\nx: ",
    "dripped": b"GET /api/v1/queues HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 2000,
    "after an answer": b"POST /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n",
}


async def test_others_are_served_while_5000_connections_are_slow_and_those_end(api: Process) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    clients: dict[str, list[socket.socket]] = {kind: [] for kind in SLOW}
    try:
        for number in range(5000):
            kind = list(SLOW)[number % len(SLOW)]
            client = socket.create_connection(("127.0.0.1", api.port or 0))
            client.sendall(SLOW[kind])
            client.setblocking(False)  # noqa: FBT003 - the socket's own signature
            clients[kind].append(client)
            if number % 100 == 0:
                await asyncio.sleep(0)
        async with httpx.AsyncClient(base_url=api.url, timeout=60) as http, neighbour(api) as other:

            async def all_ended_while_others_are_served() -> bool:
                assert (await http.post("/api/v1/tasks", json=TASK)).status_code == 201
                for kind in ("dripped", "after an answer"):
                    for client in clients[kind]:
                        with suppress(OSError):
                            client.send(b"z")
                for kind in SLOW:
                    clients[kind] = [client for client in clients[kind] if not _ended(client)]
                return not any(clients.values())

            await eventually(all_ended_while_others_are_served, timeout=120)
    finally:
        for client in itertools.chain.from_iterable(clients.values()):
            client.close()
    assert other.longest < LONGEST_SILENCE_SECONDS
    assert peak_memory(api) < chart_limit()


def _ended(client: socket.socket) -> bool:
    """Read what there is; whether that was the end, and then it is closed here too."""
    try:
        while client.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    client.close()
    return True
