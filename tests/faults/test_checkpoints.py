"""A process dies at each named point between two durable steps; the next one picks up what it left."""

import ast
from pathlib import Path

import pytest

from bobrai.runtime.checkpoint import CHECKPOINTS
from tests.faults import test_checkpoints as this_module
from tests.faults.invariants import ANY_TYPE, Expected, check, most_at_once
from tests.faults.service import SHORT_LEASE, Service
from tests.support.processes import Process

SERVICES = Path(__file__).parents[2] / "services"


def crash_at(point: str) -> dict[str, str]:
    """The setting that makes a process kill itself there."""
    return {"BOBRAI_CRASH_POINT": point}


async def died_there(process: Process) -> None:
    """Wait until the process has killed itself."""
    assert await process.exited() == -9, "it ended, but not at the checkpoint"


def test_every_checkpoint_has_a_case() -> None:
    cases = [
        mark.args[0]
        for case in vars(this_module).values()
        for mark in getattr(case, "pytestmark", [])
        if mark.name == "crashes_at"
    ]
    assert sorted(cases) == sorted(CHECKPOINTS)


def test_every_checkpoint_is_passed_by_the_product() -> None:
    passed = {
        node.args[0].value
        for file in SERVICES.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) == "checkpoint"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert passed == set(CHECKPOINTS)


@pytest.mark.crashes_at("api.committed")
async def test_api_killed_after_commit_gives_the_retry_the_same_id(service: Service) -> None:
    service.start(api=0)
    doomed = service.api(**crash_at("api.committed"))
    body = {"type": "effect", "payload": {}}
    # the client gets no answer, while its task is stored
    status, _ = service.load.request("/api/v1/tasks", body, key="same")
    assert status is None
    await died_there(doomed)
    [row] = await service.tasks("id")
    service.api()
    answer = service.load.post("/api/v1/tasks", body, key="same")
    assert answer == {"task_id": row["id"]}
    service.load.accepted.append(row["id"])
    await check(service, Expected(first_attempt_only=ANY_TYPE))


@pytest.mark.crashes_at("relay.taken")
async def test_dispatcher_killed_before_publishing_loses_no_hint(service: Service) -> None:
    await dispatcher_dies(service, "relay.taken")


@pytest.mark.crashes_at("relay.published")
async def test_dispatcher_killed_between_publish_and_delete_runs_nothing_twice(service: Service) -> None:
    await dispatcher_dies(service, "relay.published")
    # the same hints were published twice, and the second ones were recognised
    assert service.metric("bobrai_hints_stale_total", service.workers) >= 1


async def dispatcher_dies(service: Service, point: str) -> None:
    service.start(dispatcher=0)
    doomed = service.dispatcher(**crash_at(point))
    service.load.submit(50, batch=50, type="effect")
    await died_there(doomed)
    service.dispatcher()
    await check(service, Expected(first_attempt_only=ANY_TYPE))


@pytest.mark.crashes_at("relay.admitted")
async def test_dispatcher_killed_after_it_let_tasks_through_loses_no_place(service: Service) -> None:
    await service.database.execute("""UPDATE queues SET limits = '{"concurrency": 5}'""")
    await dispatcher_dies(service, "relay.admitted")
    assert await most_at_once(service) <= 5


@pytest.mark.crashes_at("worker.claimed")
async def test_worker_killed_after_claim_starts_no_handler_twice(service: Service) -> None:
    starts = await worker_dies(service, "worker.claimed")
    assert all(attempt > 1 for _task, attempt, _pid in starts), "a handler started before the crash"


@pytest.mark.crashes_at("worker.handled")
async def test_worker_killed_before_writing_the_outcome_runs_the_next_attempt(service: Service) -> None:
    starts = await worker_dies(service, "worker.handled")
    assert any(attempt == 1 for _task, attempt, _pid in starts)


async def worker_dies(service: Service, point: str) -> list[tuple[int, int, int]]:
    """The worker dies with claims, each of which is lost; returns the starts of the tasks that it held."""
    service.settings |= SHORT_LEASE
    service.start(worker=0)
    doomed = service.worker(**crash_at(point))
    service.load.submit(30, batch=30, type="effect")
    await died_there(doomed)
    held = {row["id"] for row in await service.tasks("id", "status = 'processing'")}
    assert held, "the worker held nothing when it died"
    service.worker()
    await check(service)
    lost = {row["id"] for row in await service.tasks("id", "attempt > 1")}
    assert lost == held
    return [start for start in service.starts() if start[0] in held]


@pytest.mark.crashes_at("worker.completed")
async def test_worker_killed_between_outcome_and_ack_runs_nothing_again(service: Service) -> None:
    await worker_dies_after_the_outcome(service, "worker.completed")


@pytest.mark.crashes_at("worker.acked")
async def test_worker_killed_after_ack_runs_nothing_again(service: Service) -> None:
    await worker_dies_after_the_outcome(service, "worker.acked")


async def worker_dies_after_the_outcome(service: Service, point: str) -> None:
    service.settings |= SHORT_LEASE
    service.start(worker=0)
    doomed = service.worker(**crash_at(point))
    service.load.submit(30, batch=30, type="effect")
    await died_there(doomed)
    written = {row["id"] for row in await service.tasks("id", "status = 'done'")}
    assert written, "nothing was written before the crash"
    service.worker()
    await check(service)
    again = await service.tasks("id, attempt", f"attempt > 1 AND id = ANY('{{{','.join(map(str, written))}}}')")
    assert not again, "a task that was done ran again"
