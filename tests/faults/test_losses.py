"""Workers that are lost over and over, and tasks that are what they die of: the innocent end done, the culprits failed."""

import asyncio
import json
import os
import signal
from typing import Any

import pytest

from tests.faults.invariants import Expected, check
from tests.faults.service import SHORT_LEASE, Service
from tests.support.eventually import eventually

LONGER_THAN_THE_LEASE = 4.0
DIED = frozenset({0, 1, -9, -11})
OVER_SECONDS = 90.0  # several losses in a row, each found after a lease, on a machine that is four times as slow


async def test_neighbours_of_killers_end_done_and_killers_failed(service: Service, killers: int, workers: int) -> None:
    service.settings |= SHORT_LEASE
    service.start(worker=workers)
    for kind in ("plain", "effect", "thread"):
        service.load.submit(2 * workers, batch=10, type=kind, seconds=LONGER_THAN_THE_LEASE, max_attempts=1)
    await service.reached("status = 'processing'", 6 * workers)
    killing = service.load.submit(killers, batch=killers, type="exit")
    await supervised(service)
    await check(service, Expected(failed=frozenset(killing), exit_codes=DIED))
    for row in await service.tasks("id, errors, losses, attempt, max_attempts", "type = 'exit'"):
        # as many attempts as its type has, and each was by itself
        died = [error for error in json.loads(row["errors"]) if error["type"] == "ProcessDied"]
        assert len(died) == 3, row
        assert row["attempt"] == row["max_attempts"] == row["losses"] + 3
        assert {error["reason"] for error in json.loads(row["errors"])} == {"worker_lost"}
        assert "ended with exit code 1" in died[-1]["message"]
    assert service.metric("bobrai_task_losses_total") >= 1


@pytest.fixture(params=[(1, 1), (3, 1), (2, 2), (3, 3)], ids=lambda pair: f"{pair[0]} killers, {pair[1]} workers")
def pair(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def killers(pair: tuple[int, int]) -> int:
    return pair[0]


@pytest.fixture
def workers(pair: tuple[int, int]) -> int:
    return pair[1]


@pytest.mark.parametrize(
    ("kind", "how"), [("segfault", "SIGSEGV"), ("kill-itself", "SIGKILL"), ("kill-from-thread", "SIGKILL")]
)
async def test_death_of_any_kind_is_the_culprits_alone(service: Service, kind: str, how: str) -> None:
    service.settings |= SHORT_LEASE
    service.start(worker=1)
    service.load.submit(4, batch=4, type="effect", seconds=LONGER_THAN_THE_LEASE, max_attempts=1)
    await service.reached("status = 'processing'", 4)
    [killer] = service.load.submit(1, type=kind)
    await supervised(service)
    await check(service, Expected(failed=frozenset({killer}), exit_codes=DIED))
    [row] = await service.tasks("errors", f"id = {killer}")
    assert how in json.loads(row["errors"])[-1]["message"]


async def test_however_often_machines_are_lost_no_task_fails(service: Service) -> None:
    service.settings |= SHORT_LEASE
    service.start(worker=2)
    for kind in ("plain", "effect", "thread"):
        service.load.submit(8, batch=8, type=kind, seconds=3.0, max_attempts=1)
    for _ in range(8):
        victim = service.workers[-2]
        others = service.worker(ready=False)
        await eventually(lambda busy=victim: service.metric("bobrai_worker_slots_busy", [busy]) > 0, 20)
        victim.kill()
        others.wait_ready()
    await check(service)
    assert max(row["losses"] for row in await service.tasks("losses")) >= 2, "no task was lost twice"


async def test_suspect_behaves_as_in_the_worker(service: Service) -> None:
    """Progress, results, transactions, timeouts, cancels and errors of a task that runs alone."""
    service.settings |= SHORT_LEASE
    service.start(worker=0)
    plain, effect, thread = (
        service.load.submit(1, type=kind, gate="go", max_attempts=1)[0] for kind in ("plain", "effect", "thread")
    )
    [slow] = service.load.submit(1, type="plain", gate="never", timeout_seconds=1, max_attempts=1)
    [stuck] = service.load.submit(1, type="block", seconds=600, timeout_seconds=1, max_attempts=1)
    [wrong] = service.load.submit(1, type="raise", max_attempts=1)
    [unwanted] = service.load.submit(1, type="stubborn", gate="never", max_attempts=1)
    await suspected(service)
    service.worker()
    await service.reached(f"id = {unwanted} AND status = 'processing'")
    await service.database.execute(f"UPDATE tasks SET cancel_requested = true WHERE id = {unwanted}")
    await service.reached(f"id IN ({slow}, {stuck}, {wrong}) AND status = 'failed'", 3)
    await service.reached(f"id = {unwanted} AND status = 'cancelled'")
    service.open_gate("go")
    await service.reached(f"id IN ({plain}, {effect}, {thread}) AND status = 'done'", 3)
    rows = {row["id"]: row for row in await service.tasks("id, errors, losses")}
    reasons = {task_id: json.loads(row["errors"])[-1]["reason"] for task_id, row in rows.items() if row["errors"] != "[]"}
    assert {task_id: reasons[task_id] for task_id in (slow, stuck, wrong)} == {
        slow: "timeout", stuck: "timeout", wrong: "error"
    }  # fmt: skip
    pids = {pid for _, _, pid in service.starts()}
    assert service.workers[0].pid not in pids


async def test_nothing_that_runs_alone_outlives_its_worker(service: Service) -> None:
    service.settings |= SHORT_LEASE
    service.start(worker=0)
    service.load.submit(2, batch=2, type="block", seconds=600, max_attempts=1)
    await suspected(service)
    service.worker()
    await eventually(lambda: len(service.starts()) == 2)
    alone = [pid for _, _, pid in service.starts()]
    service.workers[0].kill()
    await eventually(lambda: not any(map(is_running, alone)), message="the processes are gone")
    await service.database.execute("UPDATE tasks SET payload = '{}' WHERE finished_at IS NULL")
    service.worker()
    await check(service)


async def suspected(service: Service) -> None:
    """Make suspects of all tasks, as if a worker had been lost with them."""
    await service.database.execute("UPDATE tasks SET losses = 1")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def supervised(service: Service) -> None:
    """Do what a supervisor does until every task has ended: start again whatever has died."""
    count = len(service.workers)

    async def over() -> bool:
        for _ in range(count - sum(worker.is_running() for worker in service.workers)):
            service.worker(ready=False)
        return not await service.count("finished_at IS NULL")

    await eventually(over, OVER_SECONDS, message="every task ended")
    [worker.wait_ready() for worker in service.workers if worker.is_running()]
