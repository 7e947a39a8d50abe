"""From delivery to claim and ack: bundles, stale and doubled hints, unknown types, many queues, old deliveries."""

import asyncio

import pytest

from bobrai import Context
from bobrai.broker.port import OutgoingMessage
from bobrai.domain.message import Hint
from bobrai.telemetry.logs import captured as capture_logs
from bobrai.worker import intake as intake_module
from tests.integration.worker.service import RunningWorker, Service
from tests.support.eventually import eventually, stays


def held(worker: RunningWorker, queue: str = "default") -> int:
    return len(worker.inside.claims.intakes[queue]._held)


async def test_everything_that_arrived_is_acked_once_it_is_settled(either_service: Service) -> None:
    worker = await either_service.worker(concurrency=20)
    ids = await either_service.submit_many(500)
    await either_service.all_final(ids)
    await eventually(lambda: held(worker) == 0, message="every delivery is acked")
    assert worker.inside.executor.unsettled == 0
    await either_service.nothing_is_left()


async def test_bundle_is_acked_when_its_last_hint_is_settled(service: Service) -> None:
    gate = asyncio.Event()

    @service.task("waits")
    async def waits() -> None:
        await gate.wait()

    worker = await service.worker()
    quick = await service.submit_many(3, "echo")
    await service.all_final(quick)
    slow = await service.submit("waits")
    await service.reached(slow, "processing")
    # doubled hints, a task that never was, and one that is running, all in one message
    bundle = [*(Hint(task_id, 0) for task_id in [*quick, *quick]), Hint(10**12, 0), Hint(slow, 0), Hint(slow, 0)]
    await worker.inside._broker.publish("default", [OutgoingMessage(bundle)])
    await eventually(lambda: held(worker) == 1, message="only the running task's own delivery is left")
    assert await service.count("attempt > 1") == 0
    gate.set()
    await eventually(lambda: held(worker) == 0)


async def test_task_of_unknown_type_is_given_back_uncounted_and_said_once(service: Service) -> None:
    await service.worker()
    with capture_logs() as logs:
        ids = await service.submit_many(3, "not-here")

        async def given_back() -> bool:
            rows = await service.database.fetch(
                "SELECT count(*) FROM outbox WHERE task_id = ANY($1) AND attempt = 0 AND due_at > now() + '1 s'", ids
            )
            return bool(rows[0][0] == 3)

        await eventually(given_back, message="three hints for later")
    assert len([line for line in logs if line["event"] == "task.type_unknown"]) == 1
    assert await service.count("status = 'pending' AND attempt = 0 AND errors = '[]'") == 3
    # they are due, and wait for a worker: nobody has delayed them
    assert await service.count("run_at <= now()") == 3


async def test_quick_tasks_of_one_queue_do_not_starve_another(service: Service) -> None:
    await service.worker(queues=("default", "other"), concurrency=4)
    many = await service.submit_many(2000)
    few = await service.submit_many(5, queue="other")
    await service.all_final(few)
    assert await service.count("queue = 'default' AND status <> 'done'") > 0
    await service.all_final(many, timeout=40)


async def test_hints_that_no_slot_takes_are_given_back_for_others(service: Service) -> None:
    gate = asyncio.Event()

    @service.task("waits")
    async def waits() -> None:
        await gate.wait()

    busy = await service.worker(queues=("default", "other"), concurrency=2)
    held_up = await service.submit_many(2, "waits")
    await eventually(lambda: busy.inside.executor.running == 2)
    waiting = await service.submit_many(2, queue="other")
    await eventually(lambda: busy.inside.claims.intakes["other"].waiting == 2)
    idle = await service.worker(queues=("other",), concurrency=2)
    await service.all_final(waiting)
    assert {(await service.row(task_id))["worker_id"] for task_id in waiting} == {idle.id}
    gate.set()
    await service.all_final(held_up)


async def test_crowded_worker_takes_fewer_messages_until_a_slot_is_free(service: Service) -> None:
    gate = asyncio.Event()

    @service.task("waits")
    async def waits() -> None:
        await gate.wait()

    busy = await service.worker(queues=("default", "other"), concurrency=3)
    held_up = await service.submit_many(3, "waits")
    await eventually(lambda: busy.inside.executor.running == 3)
    waiting = await service.submit_many(6, queue="other")
    other = busy.inside.claims.intakes["other"]
    await eventually(lambda: other._prefetch == 1, message="one message at a time")
    gate.set()
    await service.all_final([*held_up, *waiting])
    await eventually(lambda: other._prefetch == 3, message="as many as slots")


async def test_worker_takes_few_messages_when_each_brings_many_tasks(service: Service) -> None:
    worker = await service.worker(concurrency=10)
    ids = await service.submit_many(1000)
    bundles = [OutgoingMessage([Hint(task_id, 0) for task_id in ids[at : at + 50]]) for at in range(0, 1000, 50)]
    await worker.inside._broker.publish("default", bundles)
    queue = worker.inside.claims.intakes["default"]
    await eventually(lambda: queue._prefetch == intake_module.LEAST_BUNDLES, message="three bundles at a time")
    await service.all_final(ids)
    gate = asyncio.Event()

    @service.task("waits")
    async def waits() -> None:
        await gate.wait()

    for _ in range(10):
        await service.submit("waits")
    await eventually(lambda: worker.inside.executor.running == 10, message="slow tasks still get every slot")
    gate.set()


async def test_long_running_tasks_delivery_is_acked_early_and_its_place_kept(
    either_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "EARLY_ACK_SECONDS", 0.5)
    gate = asyncio.Event()

    @either_service.task("long")
    async def long() -> str:
        await gate.wait()
        return "at last"

    worker = await either_service.worker(concurrency=3)
    ids = await either_service.submit_many(2, "long")
    queue = worker.inside.claims.intakes["default"]
    await eventually(lambda: queue.early == 2, message="both deliveries are acked early")
    assert held(worker) == 0
    assert queue._prefetch == 1
    assert (await either_service.run("echo"))["status"] == "done"
    await stays(lambda: worker.inside.executor.running == 2, 0.5)
    gate.set()
    await either_service.all_final(ids)
    await eventually(lambda: queue._prefetch == 3, message="every place is back")
    assert queue.early == 0


async def test_speeds_are_reported_when_they_change_and_never_when_idle(service: Service) -> None:
    @service.task("fiftieth")
    async def fiftieth() -> None:
        await asyncio.sleep(0.02)

    worker = await service.worker(concurrency=5)
    reports: list[object] = []
    reported = worker.inside._speeds.reported
    worker.inside._speeds.reported = lambda speeds: (reports.append(speeds), reported(speeds))  # type: ignore[method-assign,assignment]
    await service.all_final(await service.submit_many(100, "fiftieth"))

    async def shown() -> bool:
        rows = await service.database.fetch("SELECT (speeds->>'default')::float FROM workers WHERE id = $1", worker.id)
        return bool(rows[0][0] and 20 < rows[0][0] < 260)

    await eventually(shown, message="about 250 per second, or less on a busy machine")
    before = len(reports)
    await stays(lambda: len(reports) == before, 0.6)


async def test_each_attempts_number_is_seen_once(service: Service) -> None:
    """Hints doubled and in two workers at once start every attempt once."""
    starts: list[tuple[int, int]] = []

    @service.task("counted")
    async def counted(ctx: Context) -> None:
        starts.append((ctx.task_id, ctx.attempt))

    first = await service.worker()
    await service.worker()
    ids = await service.submit_many(300, "counted")
    again = [OutgoingMessage([Hint(task_id, 0)]) for task_id in ids]
    await first.inside._broker.publish("default", again)
    await service.all_final(ids)
    assert sorted(starts) == [(task_id, 1) for task_id in ids]
