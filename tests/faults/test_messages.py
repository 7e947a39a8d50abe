"""Messages that are lost, doubled, shuffled, or not ours: they carry hints, and hints may be wrong."""

import json
import random

from tests.faults import messages
from tests.faults.invariants import ANY_TYPE, Expected, check
from tests.faults.service import QUEUE, SHORT_GRACE, Service
from tests.support.eventually import eventually


async def waiting_in_the_queue(service: Service, tasks: int) -> list[bytes]:
    """Submit tasks that no worker takes yet, and take their hints out of the queue."""
    service.start(worker=0)
    service.load.submit(tasks, batch=50, type="effect")
    bodies: list[bytes] = []

    async def all_published() -> bool:
        bodies.extend(await messages.take_all(service.broker.url, QUEUE))
        return sum(len(json.loads(body)["hints"]) for body in bodies) >= tasks

    await eventually(all_published, 20, message=f"{tasks} hints came")
    return bodies


async def test_doubled_and_shuffled_messages_run_nothing_twice(service: Service) -> None:
    bodies = await waiting_in_the_queue(service, 150)
    tripled = bodies * 3
    random.Random(1).shuffle(tripled)
    await messages.put(service.broker.url, QUEUE, tripled)
    service.worker()
    service.worker()
    await check(service, Expected(first_attempt_only=ANY_TYPE))
    # a hint that comes twice into one claim counts once
    assert 0 < service.metric("bobrai_hints_stale_total", service.workers) <= 2 * 150


async def test_messages_that_return_long_after_the_task_ended_are_ignored(service: Service) -> None:
    bodies = await waiting_in_the_queue(service, 50)
    await messages.put(service.broker.url, QUEUE, bodies)
    service.worker()
    await service.reached("status = 'done'", 50)
    await messages.put(service.broker.url, QUEUE, bodies)
    stale = "bobrai_hints_stale_total"
    await eventually(lambda: service.metric(stale, service.workers) == 50, message="50 stale hints were seen")
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_purged_queue_is_filled_again(service: Service) -> None:
    service.settings |= SHORT_GRACE
    service.start(worker=0)
    service.load.submit(100, batch=50, type="effect")
    await eventually(lambda: service.broker.queue(QUEUE).ready > 0, 20, message="messages wait")
    await eventually(lambda: outbox_is_empty(service), 20, message="every hint is published")
    service.broker.purge(QUEUE)
    service.worker()
    await check(service, Expected(swept=True, first_attempt_only=ANY_TYPE))
    assert service.metric("bobrai_tasks_swept_total", service.dispatchers) >= 100


async def outbox_is_empty(service: Service) -> bool:
    return await service.database.fetchval("SELECT count(*) FROM outbox") == 0


async def test_garbage_goes_to_the_dead_letters_and_holds_nothing_up(service: Service) -> None:
    service.start()
    garbage = [
        b"", b"not json", b"\xff\xfe\x00", b"[]", b'{"v": 2, "hints": [[1, 0]]}', b'{"v": 1, "hints": []}',
        b'{"v": 1, "hints": [[-1, 0]]}', b'{"v": 1, "hints": [[1, 99999999999]]}', b"[" * 50_000,
    ]  # fmt: skip
    await messages.put(service.broker.url, QUEUE, garbage)
    service.load.submit(50, batch=50, type="effect")
    await check(
        service,
        Expected(
            first_attempt_only=ANY_TYPE,
            dead_letters=len(garbage),
            logged_errors=frozenset({"broker.message.malformed"}),
        ),
    )


async def test_hints_of_tasks_that_never_existed_are_ignored(service: Service) -> None:
    service.start()
    await messages.put(service.broker.url, QUEUE, [b'{"v": 1, "hints": [[999999999, 0], [999999998, 3]]}'])
    service.load.submit(20, batch=20, type="effect")
    await check(service, Expected(first_attempt_only=ANY_TYPE))
