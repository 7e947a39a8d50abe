"""The API as real processes: replicas, restarts, an unreachable database, wrong settings, a polite end."""

import asyncio
import re
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.processes import Process, Processes
from tests.support.tcp_proxy import TcpProxy

MakeProxy = Callable[[str, int], TcpProxy]
TASK = {"payload": "x", "type": "echo"}
# a client may be kept so long, whatever the database does
LONGEST_SECONDS = 10.0


def client_of(process: Process) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=200)
    return httpx.AsyncClient(base_url=process.url, timeout=LONGEST_SECONDS, limits=limits)


async def test_a_key_is_stored_once_by_parallel_requests_to_two_processes_and_after_a_restart(
    announced: Database, processes: Processes
) -> None:
    first, second = processes.start("api"), processes.start("api")
    body = {"tasks": [TASK, {**TASK, "payload": "y"}]}
    async with client_of(first) as one, client_of(second) as two:
        requests = [
            client.post(path, json=content, headers={"idempotency-key": key})
            for client in (one, two)
            for _ in range(25)
            for path, content, key in (("/api/v1/tasks", TASK, "single"), ("/api/v1/tasks/batch", body, "batch"))
        ]
        answers = await asyncio.gather(*requests)
    assert {answer.status_code for answer in answers} == {201}
    singles = [answer.json() for answer in answers[::2]]
    batches = [answer.json() for answer in answers[1::2]]
    assert all(each == singles[0] for each in singles)
    assert all(each == batches[0] for each in batches)
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 2
    assert await announced.fetchval("SELECT count(*) FROM tasks") == 3
    assert await announced.fetchval("SELECT count(*) FROM outbox") == 3

    for process in (first, second):
        process.terminate()
        assert await process.exited() == 0
    async with client_of(processes.start("api")) as restarted:
        again = await restarted.post("/api/v1/tasks", json=TASK, headers={"idempotency-key": "single"})
        other = await restarted.post(
            "/api/v1/tasks", json={**TASK, "payload": 0}, headers={"idempotency-key": "single"}
        )
    assert (again.status_code, again.json()) == (201, singles[0])
    assert other.status_code == 422
    assert await announced.fetchval("SELECT count(*) FROM tasks") == 3


async def test_a_database_that_swallows_every_byte_makes_nobody_wait_over_ten_seconds(
    announced: Database, processes: Processes, tcp_proxy: MakeProxy
) -> None:
    proxy = proxied(announced, processes, tcp_proxy)
    api = processes.start("api")
    async with client_of(api) as client:
        task_id = (await client.post("/tasks", json=TASK)).json()["task_id"]
        proxy.blackhole()
        for _ in range(2):  # the second round meets whatever the first one left behind
            answers = await asyncio.gather(*(timed(call) for call in calls(client, task_id)))
            for seconds, answer in answers:
                assert answer.status_code == 503, answer.request.url
                assert seconds < LONGEST_SECONDS, answer.request.url
                assert int(answer.headers["retry-after"]) >= 1
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/health")).json() == {"status": "unhealthy", "checks": {"database": "unhealthy"}}
        proxy.pass_through()
        await eventually(lambda: accepts(client), timeout=20)


def calls(client: httpx.AsyncClient, task_id: int) -> list[Any]:
    return [
        *(client.post("/tasks", json=TASK) for _ in range(20)),
        client.post("/tasks", json=TASK, headers={"idempotency-key": "k"}),
        client.post("/api/v1/tasks/batch", json={"tasks": [TASK]}),
        *(client.get(f"/tasks/{task_id}") for _ in range(20)),
        client.get("/api/v1/tasks"),
        client.get("/api/v1/queues"),
        client.post(f"/api/v1/tasks/{task_id}/cancel"),
    ]


async def test_a_database_that_is_down_at_the_start_gives_503_in_time_and_one_log_line(
    announced: Database, processes: Processes, tcp_proxy: MakeProxy
) -> None:
    proxy = proxied(announced, processes, tcp_proxy)
    proxy.refuse()
    api = processes.start("api", wait_ready=False)
    async with client_of(api) as client:
        await eventually(lambda: answers(client, "/livez", 200))
        for path in ("/readyz", "/health"):
            assert await answers(client, path, 503)
        seconds, answer = await timed(client.post("/tasks", json=TASK))
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert seconds < LONGEST_SECONDS
        assert (await client.get("/docs")).status_code == 200
        proxy.pass_through()
        await eventually(lambda: accepts(client), timeout=20)
        await eventually(lambda: answers(client, "/readyz", 200))
    complaints = [event for event in api.log_events() if event["level"] in {"warning", "error"}]
    assert [(event["event"], event.get("loop")) for event in complaints] == [("loop.failed", "catalog")]


async def test_a_process_that_lost_its_database_stays_ready_and_says_so_in_health_and_metrics(
    announced: Database, processes: Processes, tcp_proxy: MakeProxy
) -> None:
    proxy = proxied(announced, processes, tcp_proxy)
    api = processes.start("api")
    async with client_of(api) as client:
        proxy.refuse()
        await eventually(lambda: answers(client, "/health", 503))
        await eventually(lambda: shows(client, 'bobrai_connected{dependency="database"} 0.0'))
        for path in ("/readyz", "/docs", "/livez"):
            assert await answers(client, path, 200)
        proxy.pass_through()
        await eventually(lambda: answers(client, "/health", 200))
        await eventually(lambda: shows(client, 'bobrai_connected{dependency="database"} 1.0'))


async def test_a_process_that_ends_answers_its_waiters_at_once(announced: Database, processes: Processes) -> None:
    api = processes.start("api")
    async with client_of(api) as client:
        task_id = (await client.post("/tasks", json=TASK)).json()["task_id"]
        held = [asyncio.create_task(client.get(f"/tasks/{task_id}?wait=60", timeout=60)) for _ in range(20)]
        await eventually(lambda: waiting(client, len(held)))
        started = time.monotonic()
        api.terminate()
        assert {(answer.status_code, answer.json()["status"]) for answer in await asyncio.gather(*held)} == {
            (200, "pending")
        }
        assert await api.exited() == 0
    assert time.monotonic() - started < 5


async def test_what_was_accepted_while_the_process_ends_is_stored(announced: Database, processes: Processes) -> None:
    api = processes.start("api")
    accepted: list[int] = []

    async def submit_until_refused(client: httpx.AsyncClient) -> None:
        try:
            while True:
                answer = await client.post("/tasks", json=TASK)
                assert answer.status_code == 201
                accepted.append(answer.json()["task_id"])
        except httpx.TransportError:
            return

    async with client_of(api) as client:
        submitting = [asyncio.create_task(submit_until_refused(client)) for _ in range(20)]
        await eventually(lambda: len(accepted) > 100)
        api.terminate()
        await asyncio.gather(*submitting)
    assert await api.exited() == 0
    stored = {row["id"] for row in await announced.fetch("SELECT id FROM tasks")}
    assert set(accepted) <= stored


def test_a_taken_port_is_one_clear_line(database: Database, processes: Processes) -> None:
    processes.environment["BOBRAI_DATABASE_URL"] = database.url
    with socket.create_server(("127.0.0.1", 0)) as taken:
        api = processes.start("api", port=taken.getsockname()[1], wait_ready=False)
        assert api.wait() not in {0, None}
    assert_one_line(api, "BOBRAI_API_BIND")


@pytest.mark.parametrize("url", ["mysql://localhost/x", "postgresql://localhost:notaport/x"])
def test_a_url_that_cannot_be_read_is_one_clear_line(processes: Processes, url: str) -> None:
    processes.environment["BOBRAI_DATABASE_URL"] = url
    api = processes.start("api", wait_ready=False)
    assert api.wait() not in {0, None}
    assert_one_line(api, "BOBRAI_DATABASE_URL")


def assert_one_line(process: Process, variable: str) -> None:
    lines = process.log_text().strip().splitlines()
    assert len(lines) == 1, lines
    assert variable in lines[0]


def proxied(database: Database, processes: Processes, tcp_proxy: MakeProxy) -> TcpProxy:
    host, _, port = database.url.rpartition("@")[2].partition("/")[0].partition(":")
    proxy = tcp_proxy(host, int(port))
    processes.environment["BOBRAI_DATABASE_URL"] = proxy.url(database.url)
    return proxy


async def timed(call: Any) -> tuple[float, httpx.Response]:
    started = time.monotonic()
    answer = await call
    return time.monotonic() - started, answer


async def accepts(client: httpx.AsyncClient) -> bool:
    return (await client.post("/tasks", json=TASK)).status_code == 201


async def answers(client: httpx.AsyncClient, path: str, status: int) -> bool:
    return (await client.get(path)).status_code == status


async def waiting(client: httpx.AsyncClient, wanted: int) -> bool:
    return await shows(client, f"bobrai_task_waiters {wanted}.0")


async def shows(client: httpx.AsyncClient, sample: str) -> bool:
    return f"\n{sample}\n" in (await client.get("/metrics")).text


async def test_open_files_are_bounded_by_what_the_system_allows_and_not_by_what_it_starts_with(
    announced: Database, processes: Processes
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        api = processes.start("api")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    [most] = re.findall(rb"^process_max_fds (\S+)$", api.get("/metrics")[1], re.MULTILINE)
    assert float(most) == min(hard, 65_536)
