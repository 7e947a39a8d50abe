"""Tasks that take all memory of a hardened container: the kernel ends the worker with all it runs, and then nobody."""

import json
from collections.abc import Iterator

import pytest

from tests.images.engine import Container, Containers, Image, docker
from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.own_handlers import submit
from tests.support.rabbitmq import VirtualHost

HANDLERS = """
import asyncio, os, subprocess, sys, time
from bobrai import task

@task("neighbour")
async def neighbour() -> int:
    await asyncio.sleep(4)
    return os.getpid()

def either(name, **more):
    def declare(function):
        task(name)(function)
        return task(f"{name}-in-process", runs_in="process", **more)(function)
    return declare

@either("hoard")
async def hoard() -> None:
    taken = []
    while True:
        taken.append(b"x" * 4_000_000)
        await asyncio.sleep(0)

@either("hoard-at-once", memory_mb=200)
def hoard_at_once() -> int:
    return len(b"x" * 380_000_000)

@either("hoard-elsewhere", memory_mb=200)
def hoard_elsewhere() -> None:
    program = "import time; there = b'x' * 8_000_000; time.sleep(600)"
    while True:
        subprocess.Popen([sys.executable, "-S", "-c", program])
        time.sleep(0.02)
"""
LIMIT = ("--memory", "400m", "--memory-swap", "400m")
LONGEST_SECONDS = 180.0


@pytest.fixture(scope="module")
def hoarding_image(worker_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("hoarding-image")
    image = Image.with_handlers("bobrai-hoarding-worker:tested", worker_image, "hoarders", HANDLERS, folder)
    yield image
    image.remove()


@pytest.fixture
async def worker(
    containers: Containers, api_image: Image, hoarding_image: Image, database: Database, rabbitmq: VirtualHost
) -> Container:
    """One with a limit, in which six neighbours run."""
    containers.environment |= {
        "BOBRAI_DATABASE_URL": database.url,
        "BOBRAI_RABBITMQ_URL": rabbitmq.url,
        "BOBRAI_WORKER_LEASE_SECONDS": "2",
        "BOBRAI_WORKER_HEARTBEAT_SECONDS": "0.3",
        "BOBRAI_DISPATCHER_REAP_SECONDS": "0.2",
        "BOBRAI_WORKER_HEALTH_BIND": "127.0.0.1:0",
        "BOBRAI_DISPATCHER_HEALTH_BIND": "127.0.0.1:0",
    }
    await submit(database, "neighbour", count=6)
    containers.start(api_image, "dispatcher")
    worker = containers.start(hoarding_image, options=LIMIT)
    await eventually(lambda: all_run(database), 30)
    return worker


async def test_tasks_that_take_all_memory_fail_and_their_neighbours_end_done(
    worker: Container, database: Database
) -> None:
    hoarders = ["hoard", "hoard-at-once", "hoard-elsewhere"]
    for kind in hoarders:
        await submit(database, kind, max_attempts=2)
    ended: list[bool] = []  # by the kernel, for want of memory?

    async def over() -> bool:
        if not worker.is_running:
            ended.append(was_out_of_memory(worker))
            docker("start", worker.identity)
        return not await count(database, "finished_at IS NULL")

    await eventually(over, LONGEST_SECONDS, message=f"all is over\n{worker.logs()}")
    assert ended[:1] == [True], "nobody was short of memory: the case proved nothing"
    rows = await database.fetch("SELECT type, status, errors::text, losses FROM tasks ORDER BY id")
    assert [(row["type"], row["status"]) for row in rows] == [
        *[("neighbour", "done")] * 6, *[(kind, "failed") for kind in hoarders]
    ]  # fmt: skip
    for row in rows[6:]:
        last = json.loads(row["errors"])[-1]
        assert (last["type"], last["reason"]) == ("ProcessDied", "worker_lost")
        assert "it may use" in last["message"], row


async def test_in_processes_they_fail_and_the_container_goes_on(worker: Container, database: Database) -> None:
    hoarders = ["hoard-in-process", "hoard-at-once-in-process", "hoard-elsewhere-in-process"]
    for kind in hoarders:
        await submit(database, kind, max_attempts=2)

    async def over() -> bool:
        assert worker.is_running, f"the container ended\n{worker.logs()}"
        return not await count(database, "finished_at IS NULL")

    await eventually(over, LONGEST_SECONDS, message="all is over")
    rows = await database.fetch("SELECT type, status, errors::text, losses FROM tasks ORDER BY id")
    assert [(row["type"], row["status"], row["losses"]) for row in rows] == [
        *[("neighbour", "done", 0)] * 6, *[(kind, "failed", 0) for kind in hoarders]
    ]  # fmt: skip
    for row in rows[6:]:
        assert [error["reason"] for error in json.loads(row["errors"])] == ["memory_limit"] * 2, row


async def all_run(database: Database) -> bool:
    return not await count(database, "status <> 'processing'")


def was_out_of_memory(container: Container) -> bool:
    state = json.loads(docker("inspect", "--format", "{{json .State}}", container.identity).stdout)
    return bool(state["OOMKilled"])


async def count(database: Database, where: str) -> int:
    return int(await database.fetchval(f"SELECT count(*) FROM tasks WHERE {where}"))
