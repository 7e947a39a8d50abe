"""Types that run in processes: what becomes of a process hurts no other task, and no process outlives its worker."""

import json

import psutil

from tests.faults.invariants import Expected, check
from tests.faults.service import SHORT_LEASE, Service
from tests.support.eventually import eventually

KILLERS = {
    "exit-process": "exit code 1",
    "kill-itself-process": "SIGKILL",
    "kill-from-thread-process": "SIGKILL",
    "segfault-process": "SIGSEGV",
}
PROCESS_TYPES = frozenset({"plain-process", "effect-process", "thread-process"})


async def test_crashes_in_processes_cost_nobody_else_anything(service: Service) -> None:
    service.start()
    [worker] = service.workers
    for kind in (*PROCESS_TYPES, "plain", "thread"):
        service.load.submit(40, batch=40, type=kind, seconds=0.02, max_attempts=1)
    killing = {service.load.submit(1, type=kind)[0]: how for kind, how in KILLERS.items()}
    await check(service, Expected(failed=frozenset(killing), first_attempt_only=PROCESS_TYPES | {"plain", "thread"}))
    assert worker.is_running(), "its container never starts again"
    starts = service.starts()
    for row in await service.tasks("id, errors, losses", "status = 'failed'"):
        errors = json.loads(row["errors"])
        assert [error["reason"] for error in errors] == ["crashed"] * 3
        assert killing[row["id"]] in errors[-1]["message"]
        assert row["losses"] == 0
        assert sorted(attempt for task_id, attempt, _ in starts.elements() if task_id == row["id"]) == [1, 2, 3]
    assert service.metric("bobrai_task_losses_total") == 3 * len(KILLERS)


async def test_no_process_outlives_a_killed_worker(service: Service) -> None:
    service.settings |= SHORT_LEASE
    service.start()
    service.load.submit(4, batch=4, type="block-process", gate="", seconds=600, max_attempts=1)
    service.load.submit(4, batch=4, type="effect-process", gate="go", max_attempts=1)
    await eventually(lambda: len(service.starts()) == 8, 30)
    [worker] = service.workers
    below = [each.pid for each in psutil.Process(worker.pid).children(recursive=True)]
    assert {pid for _, _, pid in service.starts()} < set(below)
    worker.kill()
    await eventually(lambda: not any(map(psutil.pid_exists, below)), message="the processes are gone")
    await service.database.execute("UPDATE tasks SET payload = '{}' WHERE type = 'block-process'")
    service.open_gate("go")
    service.worker()
    await check(service)


async def test_frozen_worker_with_processes_ends_nothing_twice(service: Service) -> None:
    service.settings |= SHORT_LEASE
    service.start()
    [frozen] = service.workers
    service.load.submit(4, batch=4, type="effect-process", gate="go", max_attempts=1)
    await eventually(lambda: len(service.starts()) == 4, 30)
    frozen.freeze()
    service.worker()
    # Not all of them: the broker may have delivered the new hints of some to the frozen worker.
    await eventually(lambda: len(service.starts()) > 4, 30, message="another worker has them")
    service.open_gate("go")
    await service.reached("status = 'done'")
    frozen.thaw()
    await check(service)


async def test_sigterm_gives_back_what_runs_in_processes_uncounted(service: Service) -> None:
    service.settings |= {"BOBRAI_WORKER_DRAIN_SECONDS": "0.5"}
    service.start()
    [leaving] = service.workers
    service.load.submit(3, batch=3, type="effect-process", gate="go", max_attempts=1)
    await eventually(lambda: len(service.starts()) == 3, 30)
    below = [each.pid for each in psutil.Process(leaving.pid).children(recursive=True)]
    leaving.terminate()
    assert await leaving.exited() == 0
    assert await service.count("status = 'pending' AND attempt = 0 AND losses = 0 AND errors = '[]'") == 3
    await eventually(lambda: not any(map(psutil.pid_exists, below)))
    service.open_gate("go")
    service.worker()
    await check(service, Expected(first_attempt_only=PROCESS_TYPES))
