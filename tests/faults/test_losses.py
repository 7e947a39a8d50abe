"""Workers that are lost over and over, and tasks that they die of: the innocent end done, the culprits failed."""

import json

import psutil
import pytest

from tests.faults.invariants import ANY_TYPE, Expected, check
from tests.faults.service import SHORT_LEASE, Service
from tests.support.eventually import eventually

LONGER_THAN_THE_LEASE = 4.0
DIED = frozenset({0, 1, -9, -11})
KILLERS = {"exit": "exit code 1", "kill-from-thread": "SIGKILL", "segfault": "SIGSEGV"}  # and how each ends
OVER_SECONDS = 90.0  # several losses in a row, each found after a lease, on a machine that is four times as slow


async def test_neighbours_of_killers_end_done_and_killers_failed(service: Service, killers: int, workers: int) -> None:
    service.settings |= SHORT_LEASE
    service.start(worker=workers)
    for kind in ("plain", "effect", "thread"):
        service.load.submit(2 * workers, batch=10, type=kind, seconds=LONGER_THAN_THE_LEASE, max_attempts=1)
    await service.reached("status = 'processing'", 6 * workers)
    killing = [service.load.submit(1, type=kind)[0] for kind in [*KILLERS][:killers]]
    await supervised(service)
    await check(service, Expected(failed=frozenset(killing), exit_codes=DIED))
    for row in await service.tasks("id, type, errors, losses, attempt, max_attempts", "status = 'failed'"):
        # as many attempts as its type has, and each was by itself
        died = [error for error in json.loads(row["errors"]) if error["type"] == "ProcessDied"]
        assert len(died) == 3, row
        assert row["attempt"] == row["max_attempts"] == row["losses"] + 3
        assert {error["reason"] for error in json.loads(row["errors"])} == {"worker_lost"}
        assert KILLERS[row["type"]] in died[-1]["message"]
    assert service.metric("bobrai_task_losses_total") >= 1


@pytest.fixture(params=[(1, 3), (2, 2), (3, 1)], ids=lambda pair: f"{pair[0]} killers, {pair[1]} workers")
def pair(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def killers(pair: tuple[int, int]) -> int:
    return pair[0]


@pytest.fixture
def workers(pair: tuple[int, int]) -> int:
    return pair[1]


async def test_however_often_machines_are_lost_no_task_fails(service: Service) -> None:
    service.settings |= SHORT_LEASE
    service.start(worker=2)
    for kind in ("plain", "effect", "thread"):
        service.load.submit(8, batch=8, type=kind, seconds=2.0, max_attempts=1)
    for _ in range(6):
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
    reasons = {
        task_id: json.loads(row["errors"])[-1]["reason"] for task_id, row in rows.items() if row["errors"] != "[]"
    }
    assert {task_id: reasons[task_id] for task_id in (slow, stuck, wrong)} == {
        slow: "timeout", stuck: "timeout", wrong: "error"
    }  # fmt: skip
    pids = {pid for _, _, pid in service.starts()}
    assert service.workers[0].pid not in pids


async def test_sigterm_gives_back_what_runs_alone_uncounted(service: Service) -> None:
    service.settings |= {"BOBRAI_WORKER_DRAIN_SECONDS": "0.5"}
    service.start(worker=0)
    service.load.submit(3, batch=3, type="effect", gate="go", max_attempts=1)
    await suspected(service)
    leaving = service.worker()
    await eventually(lambda: len(service.starts()) == 3, 20)
    leaving.terminate()
    assert await leaving.exited() == 0
    assert await service.count("status = 'pending' AND attempt = 0 AND losses = 1 AND errors = '[]'") == 3
    service.open_gate("go")
    service.worker()
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_nothing_that_runs_alone_outlives_its_worker(service: Service) -> None:
    service.settings |= SHORT_LEASE
    service.start(worker=0)
    service.load.submit(2, batch=2, type="block", seconds=600, max_attempts=1)
    await suspected(service)
    service.worker()
    await eventually(lambda: len(service.starts()) == 2)
    alone = [pid for _, _, pid in service.starts()]
    service.workers[0].kill()
    await eventually(lambda: not any(map(psutil.pid_exists, alone)), message="the processes are gone")
    await service.database.execute("UPDATE tasks SET payload = '{}' WHERE finished_at IS NULL")
    service.worker()
    await check(service)


async def test_suspect_runs_in_the_worker_when_its_own_process_does_not_come_up(service: Service) -> None:
    service.start(worker=0)
    (service.folder / "only_in_workers.py").write_text(
        "import sys\nfrom bobrai import task\nif 'fork-server' in sys.argv:\n    sys.exit(3)\n"
        "@task('only-in-workers')\nasync def only_in_workers() -> None: ...\n"
    )
    service.settings["BOBRAI_HANDLERS"] += ",only_in_workers"
    service.load.submit(2, batch=2, type="effect", max_attempts=1)
    await suspected(service)
    worker = service.worker()
    await check(service, Expected(first_attempt_only=ANY_TYPE, logged_errors=frozenset({"isolation.failed"})))
    assert {pid for _, _, pid in service.starts()} == {worker.pid}
    assert service.metric("bobrai_isolation_failures_total") == 2


async def suspected(service: Service) -> None:
    """Make suspects of all tasks, as if a worker had been lost with them."""
    await service.database.execute("UPDATE tasks SET losses = 1")


async def supervised(service: Service) -> None:
    """Do what a supervisor does until every task has ended: start again whatever has died."""
    count = len(service.workers)

    async def over() -> bool:
        for _ in range(count - sum(worker.is_running() for worker in service.workers)):
            service.worker(ready=False)
        return not await service.count("finished_at IS NULL")

    await eventually(over, OVER_SECONDS, message="every task ended")
    [worker.wait_ready() for worker in service.workers if worker.is_running()]
