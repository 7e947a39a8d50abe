"""Workers that die, freeze or leave in the middle of a call for many tasks: each of their rows tells the truth."""

import json

from tests.faults.handlers import BATCH_SIZE
from tests.faults.invariants import ANY_TYPE, Expected, check
from tests.faults.service import SHORT_LEASE, Service
from tests.faults.test_workers import IN_THE_WORKER, running_on, started
from tests.support.eventually import eventually

ONE_CALL = {"BOBRAI_WORKER_CONCURRENCY": str(BATCH_SIZE)}  # all slots are in it


async def test_worker_killed_in_the_middle_of_a_call_loses_none_of_its_tasks(service: Service) -> None:
    service.settings |= SHORT_LEASE
    service.start(worker=2)
    victim = service.workers[0]
    service.load.submit(200, batch=50, type="batch", seconds=0.1, max_attempts=1)
    service.load.submit(50, batch=50, type="effect", seconds=0.05)
    await running_on(service, victim)
    victim.kill()
    await check(service)
    lost = await service.tasks("errors", "losses > 0 AND type = 'batch'")
    assert lost, "the worker held nothing when it was killed: the case proved nothing"
    assert {error["reason"] for row in lost for error in json.loads(row["errors"])} <= {"worker_lost"}


async def test_task_that_ends_its_process_takes_down_none_of_its_call(service: Service) -> None:
    service.settings |= SHORT_LEASE | ONE_CALL
    service.start(worker=1)
    service.load.submit(BATCH_SIZE - 1, batch=BATCH_SIZE, type="batch", gate="go", max_attempts=1)
    [culprit] = service.load.submit(1, type="batch", gate="go", dies=True, max_attempts=1)
    await started(service, service.workers[0], BATCH_SIZE)
    service.open_gate("go")
    await service.workers[0].exited()
    service.worker()
    await check(service, Expected(failed=frozenset({culprit}), exit_codes=frozenset({0, 1})))
    rows = await service.tasks("id, losses, errors")
    assert {row["losses"] for row in rows} == {1}
    assert all(json.loads(row["errors"])[-1]["reason"] == "worker_lost" for row in rows)


async def test_frozen_workers_late_results_are_refused_one_and_all(service: Service) -> None:
    service.settings |= SHORT_LEASE | IN_THE_WORKER | ONE_CALL
    service.start(worker=1)
    frozen = service.workers[0]
    service.load.submit(BATCH_SIZE, batch=BATCH_SIZE, type="batch", gate="go")
    await started(service, frozen, BATCH_SIZE)
    frozen.freeze()
    other = service.worker()
    await started(service, other, BATCH_SIZE)
    service.open_gate("go")
    await service.reached("status = 'done'", BATCH_SIZE)
    frozen.thaw()
    await eventually(
        lambda: service.metric("bobrai_claims_lost_total", [frozen]) >= BATCH_SIZE, message="all claims are lost"
    )
    await check(service)
    results = await service.tasks("result::jsonb->>'pid' AS pid, result::jsonb->>'attempt' AS attempt")
    assert {(row["pid"], row["attempt"]) for row in results} == {(str(other.pid), "2")}


async def test_sigterm_under_a_load_of_batches_costs_no_attempt(service: Service) -> None:
    service.start(worker=2)
    with service.load.flowing(types=("batch", "plain"), seconds=0.1, batch=10):
        leaving = service.workers[0]
        await running_on(service, leaving)
        leaving.terminate()
        assert await leaving.exited() == 0
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_calls_longer_than_the_drain_are_given_back_uncounted(service: Service) -> None:
    service.settings |= ONE_CALL | {"BOBRAI_WORKER_DRAIN_SECONDS": "0.5"}
    service.start(worker=1)
    leaving = service.workers[0]
    service.load.submit(BATCH_SIZE, batch=BATCH_SIZE, type="batch", gate="go")
    await started(service, leaving, BATCH_SIZE)
    leaving.terminate()
    assert await leaving.exited() == 0
    assert await service.count("status = 'pending' AND attempt = 0") == BATCH_SIZE
    other = service.worker()
    await started(service, other, BATCH_SIZE)
    service.open_gate("go")
    await check(service, Expected(first_attempt_only=ANY_TYPE))
    assert service.metric("bobrai_handler_batch_size_sum", [other]) == BATCH_SIZE
