"""Workers that die, freeze, are asked to leave, block, or run a task that kills them."""

import json

from tests.faults.invariants import ANY_TYPE, Expected, check
from tests.faults.service import SHORT_LEASE, Service
from tests.support.eventually import eventually, stays
from tests.support.processes import Process

# what the reaper of a short lease must keep: lease, a reap period, a restart of a busy machine's process
TAKEN_BACK_SECONDS = 20.0
# also what was lost before, so that one process's id shows all that a worker ran
IN_THE_WORKER = {"BOBRAI_WORKER_ISOLATED": "0"}


async def test_killed_worker_loses_no_task(service: Service) -> None:
    service.settings |= SHORT_LEASE
    service.start(worker=2)
    victim = service.workers[0]
    service.load.submit(150, batch=50, type="effect", seconds=0.05)
    service.load.submit(150, batch=50, type="plain", seconds=0.05)
    await running_on(service, victim)
    victim.kill()
    await check(service)
    lost = await service.tasks("id, errors", "attempt > 1")
    assert lost, "the worker held nothing when it was killed: the case proved nothing"
    assert {error["reason"] for row in lost for error in reasons(row)} == {"worker_lost"}


async def test_frozen_workers_late_result_is_refused(service: Service) -> None:
    # as many slots as tasks: a free one would draw hints to the frozen worker, which is the next case
    service.settings |= SHORT_LEASE | IN_THE_WORKER | {"BOBRAI_WORKER_CONCURRENCY": "8"}
    service.start(worker=1)
    frozen = service.workers[0]
    service.load.submit(4, type="stubborn", gate="go")
    service.load.submit(4, type="effect", gate="go")
    await started(service, frozen, 8)
    frozen.freeze()
    other = service.worker()
    await started(service, other, 8)
    service.open_gate("go")
    await service.reached("status = 'done'", 8)
    frozen.thaw()
    # whichever comes first there, the lost lease or the end of a handler, all eight outcomes must be dropped
    await eventually(lambda: service.metric("bobrai_claims_lost_total", [frozen]) >= 8, message="8 lost claims")
    await check(service)
    results = await service.tasks("result::jsonb->>'pid' AS pid, result::jsonb->>'attempt' AS attempt")
    assert {(row["pid"], row["attempt"]) for row in results} == {(str(other.pid), "2")}


async def test_worker_that_does_not_know_that_it_is_lost_overwrites_nothing(service: Service) -> None:
    # no heartbeat tells it in time: only the fence in the database stands between its outcomes and the rows
    service.settings |= {"BOBRAI_WORKER_HEARTBEAT_SECONDS": "15", "BOBRAI_WORKER_LEASE_SECONDS": "60"}
    service.settings |= IN_THE_WORKER | {"BOBRAI_WORKER_CONCURRENCY": "12"}
    service.start(worker=1)
    lost = service.workers[0]
    for kind in ("plain", "effect", "thread"):
        service.load.submit(4, type=kind, gate="go")
    await started(service, lost, 12)
    await service.database.execute("DELETE FROM workers")
    other = service.worker()
    await started(service, other, 12)
    service.open_gate("go")
    await check(service)
    await eventually(lambda: service.metric("bobrai_claims_lost_total", [lost]) == 12, message="12 lost claims")
    results = await service.tasks("result::jsonb->>'pid' AS pid, result::jsonb->>'attempt' AS attempt")
    assert {(row["pid"], row["attempt"]) for row in results} == {(str(other.pid), "2")}


async def test_hints_that_a_frozen_worker_received_go_to_another(service: Service) -> None:
    # the broker gives up on a silent consumer after two heartbeats
    service.settings |= SHORT_LEASE | {"BOBRAI_RABBITMQ_URL": f"{service.broker.url}?heartbeat=1"}
    service.start(worker=2)
    service.workers[0].freeze()
    service.load.submit(40, type="effect")
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_worker_that_lost_its_lease_works_again_under_a_new_id(service: Service) -> None:
    service.settings |= SHORT_LEASE
    service.start(worker=1)
    worker = service.workers[0]
    before = await worker_ids(service)
    worker.freeze()
    await service_forgets(service, before)
    worker.thaw()
    service.load.submit(20, batch=20)
    await check(service)
    assert await worker_ids(service) not in (before, [])
    assert service.metric("bobrai_leases_lost_total", [worker]) == 1
    worker.wait_ready()


async def test_sigterm_under_load_costs_no_attempt(service: Service) -> None:
    service.start(worker=2)
    with service.load.flowing(seconds=0.1, batch=5):
        leaving = service.workers[0]
        await running_on(service, leaving)
        leaving.terminate()
        assert await leaving.exited() == 0
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_tasks_longer_than_the_drain_are_given_back_uncounted(service: Service) -> None:
    service.settings["BOBRAI_WORKER_DRAIN_SECONDS"] = "0.5"
    service.start(worker=1)
    leaving = service.workers[0]
    service.load.submit(5, batch=5, type="effect", gate="go")
    await started(service, leaving, 5)
    leaving.terminate()
    assert await leaving.exited() == 0
    assert await service.count("status = 'pending' AND attempt = 0") == 5
    other = service.worker()
    await started(service, other, 5)
    service.open_gate("go")
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_rolling_restart_of_all_workers_costs_no_attempt(service: Service) -> None:
    service.start(worker=3)
    with service.load.flowing(seconds=0.1, batch=5):
        for leaving in list(service.workers):
            successor = service.worker()
            await running_on(service, leaving)
            leaving.terminate()
            assert await leaving.exited() == 0
            await running_on(service, successor)
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_handler_that_blocks_the_event_loop_keeps_its_claim(service: Service) -> None:
    service.settings |= SHORT_LEASE | {"BOBRAI_WORKER_BLOCKED_SECONDS": "0.5"}
    service.start(worker=2)
    service.load.submit(2, type="block", seconds=4)
    service.load.submit(20, batch=20)
    await check(service, Expected(first_attempt_only=ANY_TYPE))
    assert service.metric("bobrai_handler_blocked_total", service.workers) >= 1


async def test_task_that_always_fails_ends_failed_after_its_last_attempt(service: Service) -> None:
    service.start()
    failing = service.load.submit(20, batch=20, type="raise", max_attempts=3)
    service.load.submit(20, batch=20)
    await check(service, Expected(failed=frozenset(failing)))
    assert {row["attempt"] for row in await service.tasks("attempt", "status = 'failed'")} == {3}


async def test_last_worker_gone_leaves_tasks_waiting_for_the_next(service: Service) -> None:
    service.settings |= SHORT_LEASE
    service.start(worker=1)
    service.load.submit(100, batch=100, type="effect", seconds=0.2)
    await running_on(service, service.workers[0])
    service.workers[0].kill()
    await eventually(lambda: none_processing(service), TAKEN_BACK_SECONDS, message="the tasks are taken back")
    await stays(lambda: none_processing(service), 0.5, message="nothing runs without a worker")
    service.worker()
    await check(service)


async def none_processing(service: Service) -> bool:
    return not await service.count("status = 'processing'")


def reasons(row: dict[str, str]) -> list[dict[str, str]]:
    """The errors of a task's row."""
    return list(json.loads(row["errors"]))


async def worker_ids(service: Service) -> list[int]:
    rows = await service.database.fetch("SELECT id FROM workers ORDER BY id")
    return [row["id"] for row in rows]


async def service_forgets(service: Service, ids: list[int]) -> None:
    """Wait until the rows of these workers are gone."""

    async def gone() -> bool:
        return not set(ids) & set(await worker_ids(service))

    await eventually(gone, TAKEN_BACK_SECONDS, message="the lease expired")


async def started(service: Service, worker: Process, count: int) -> None:
    """Wait until this worker has started so many handlers."""
    await eventually(
        lambda: sum(pid == worker.pid for _task, _attempt, pid in service.starts()) >= count, TAKEN_BACK_SECONDS,
        message=f"{worker.name} {worker.pid} started {count} handlers",
    )  # fmt: skip


async def running_on(service: Service, worker: Process) -> None:
    """Wait until this worker has started a handler after now."""
    before = sum(pid == worker.pid for _task, _attempt, pid in service.starts())
    await started(service, worker, before + 1)
