"""Items of a batch that are told to end: they leave, the others go on, and what all have left is ended too."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bobrai import Batch, CallNext, Context, Item, Retry
from bobrai.store import tasks
from bobrai.telemetry.logs import captured as capture_logs
from bobrai.worker.executor import Executor
from tests.integration.worker.service import RunningWorker, Service
from tests.support.authors import SOMEBODY
from tests.support.eventually import eventually, stays

ONCE = Retry(max_attempts=1)
LONG = 50.0  # seconds that no test waits for
RUNS = pytest.mark.parametrize("runs", ["async", "thread"])


class Calls:
    """The calls of the type ``held``, each of which ends when the gate is open."""

    def __init__(self) -> None:
        self.items: list[list[Item[str]]] = []
        self.gate = threading.Event()
        self.cancelled = 0
        self.ended = 0

    def begin(self, items: list[Item[str]]) -> None:
        self.items.append(items)

    def left(self, payload: str) -> bool:
        """Whether the item of the last call with this payload was told to end."""
        return next(item for item in self.items[-1] if item.payload == payload).cancelled


Declare = Callable[..., Calls]


@pytest.fixture
def declare(service: Service) -> Iterator[Declare]:
    """Declares ``held``, async or plain; a plain one returns when all of its items are told to end."""
    made: list[Calls] = []

    def declare(runs: str, size: int, *, listens: bool = True) -> Calls:
        calls = Calls()
        made.append(calls)

        async def held_async(items: list[Item[str]]) -> list[str]:
            calls.begin(items)
            while not calls.gate.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    calls.cancelled += 1
                    if listens:
                        raise
            calls.ended += 1
            return [item.payload for item in items]

        def held(items: list[Item[str]]) -> list[str]:
            calls.begin(items)
            while not calls.gate.is_set() and not (listens and all(item.cancelled for item in items)):
                time.sleep(0.01)
            calls.cancelled += not calls.gate.is_set()
            calls.ended += 1
            return [item.payload for item in items]

        service.task("held", batch=Batch(size, LONG))(held if runs == "thread" else held_async)
        return calls

    yield declare
    for calls in made:
        calls.gate.set()


async def call_of(service: Service, calls: Calls, *payloads: str, **more: Any) -> list[int]:
    """Submit a task for each payload, and wait until all of them are in one call."""
    before = len(calls.items)
    ids = [await service.submit("held", payload, **more) for payload in payloads]
    await eventually(lambda: len(calls.items) == before + 1)
    assert {item.payload for item in calls.items[-1]} == set(payloads)
    return ids


async def reason(service: Service, task_id: int) -> tuple[str, str]:
    row = await service.final(task_id)
    return row["status"], row["errors"][-1]["reason"] if row["errors"] else ""


@RUNS
async def test_an_item_that_times_out_leaves_the_others_to_finish(
    service: Service, declare: Declare, runs: str
) -> None:
    calls = declare(runs, 3)
    worker = await service.worker()
    others = [await service.submit("held", name) for name in "ab"]
    hasty = await service.submit("held", "hasty", timeout_seconds=1.0, retry=ONCE)
    assert await reason(service, hasty) == ("failed", "timeout")
    assert calls.left("hasty")
    assert not calls.left("a")
    assert worker.inside.executor.running == 2
    calls.gate.set()
    assert [(await service.final(task_id))["result"] for task_id in others] == ["a", "b"]
    assert (len(calls.items), calls.cancelled) == (1, 0)


@RUNS
async def test_an_item_that_a_user_cancels_leaves_the_others_to_finish(
    service: Service, declare: Declare, runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Executor.__init__, "__defaults__", (LONG,))  # it leaves at once, not when its grace is over
    calls = declare(runs, 3)
    await service.worker()
    one, two, three = await call_of(service, calls, "one", "two", "three")
    await tasks.cancel(service.database, two, by=SOMEBODY)
    assert await reason(service, two) == ("cancelled", "")
    assert [calls.left(name) for name in ("one", "two", "three")] == [False, True, False]
    calls.gate.set()
    assert [(await service.final(task_id))["result"] for task_id in (one, three)] == ["one", "three"]
    assert (await service.row(two))["result"] is None


@RUNS
async def test_a_call_that_all_its_items_have_left_is_told_to_end(
    service: Service, declare: Declare, runs: str
) -> None:
    calls = declare(runs, 3)
    worker = await service.worker()
    ids = await call_of(service, calls, "one", "two", "three")
    for task_id in ids:
        await tasks.cancel(service.database, task_id, by=SOMEBODY)
    for task_id in ids:
        assert await reason(service, task_id) == ("cancelled", "")
    await eventually(lambda: calls.cancelled == 1)
    assert len(calls.items) == 1
    await eventually(lambda: worker.inside.executor.running == 0)


async def test_an_item_that_leaves_before_the_call_is_not_in_it(service: Service, declare: Declare) -> None:
    calls = declare("async", 3)
    await service.worker(concurrency=3)
    gone = await service.submit("held", "gone")
    await service.reached(gone, "processing")
    await tasks.cancel(service.database, gone, by=SOMEBODY)
    assert await reason(service, gone) == ("cancelled", "")
    calls.gate.set()
    ids = await call_of(service, calls, "one", "two", "three")
    await service.all_final(ids)
    assert len(calls.items) == 1


@RUNS
async def test_a_call_that_does_not_listen_is_reported_once_and_its_slots_are_free(
    service: Service, declare: Declare, runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Executor.__init__, "__defaults__", (0.2,))
    calls = declare(runs, 3, listens=False)
    worker = await service.worker(concurrency=3)
    with capture_logs() as logs:
        ids = await call_of(service, calls, "one", "two", "three", timeout_seconds=3.0, retry=ONCE)
        for task_id in ids:
            assert await reason(service, task_id) == ("failed", "timeout")
        assert (await service.run("echo", "the slots are free"))["status"] == "done"
        await eventually(lambda: any(line["event"] == "handler.abandoned" for line in logs))
        assert worker.inside.executor.running == 0
        await stays(lambda: sum(line["event"] == "handler.abandoned" for line in logs) == 1, 0.5)
    [report] = [line for line in logs if line["event"] == "handler.abandoned"]
    assert (report["type"], report["cause"]) == ("held", "timeout")
    calls.gate.set()
    await eventually(lambda: calls.ended == 1)
    assert await service.count("status = 'failed'") == 3


async def test_a_call_that_does_not_listen_does_not_keep_the_worker(
    service: Service, declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bobrai.worker.executor.INTERRUPT_GRACE_SECONDS", 0.2)
    calls = declare("async", 2, listens=False)
    worker = await service.worker(drain_seconds=0.2)
    ids = await call_of(service, calls, "one", "two")
    worker.stop.request("test")
    await worker.ended()
    assert calls.ended == 0
    for task_id in ids:
        row = await service.row(task_id)
        assert (row["status"], row["attempt"]) == ("pending", 0)


async def drained(worker: RunningWorker) -> None:
    worker.stop.request("test")
    await worker.ended()


@RUNS
async def test_a_drain_lets_the_call_finish(service: Service, declare: Declare, runs: str) -> None:
    calls = declare(runs, 2)
    worker = await service.worker(drain_seconds=20)
    ids = await call_of(service, calls, "one", "two")
    worker.stop.request("test")
    await eventually(lambda: worker.inside.executor.draining)
    calls.gate.set()
    await worker.ended()
    rows = [await service.row(task_id) for task_id in ids]
    assert [(row["status"], row["result"], row["attempt"]) for row in rows] == [("done", "one", 1), ("done", "two", 1)]


async def test_a_drain_calls_what_waits_for_more(service: Service, declare: Declare) -> None:
    calls = declare("async", 5)
    calls.gate.set()
    worker = await service.worker(drain_seconds=20)
    ids = [await service.submit("held", name) for name in "ab"]
    await eventually(lambda: worker.inside.executor.running == 2)
    await drained(worker)
    assert [(await service.row(task_id))["result"] for task_id in ids] == ["a", "b"]
    assert len(calls.items) == 1


@RUNS
async def test_what_a_call_has_not_finished_after_the_drain_time_is_given_back_uncounted(
    service: Service, declare: Declare, runs: str
) -> None:
    calls = declare(runs, 3)
    worker = await service.worker(drain_seconds=0.3)
    ids = await call_of(service, calls, "one", "two", "three")
    await drained(worker)
    assert calls.cancelled == 1
    for task_id in ids:
        row = await service.row(task_id)
        assert (row["status"], row["attempt"], row["errors"]) == ("pending", 0, [])


@RUNS
async def test_a_lost_lease_drops_every_item_and_their_next_attempts_are_a_call_of_their_own(
    service: Service, declare: Declare, runs: str
) -> None:
    calls = declare(runs, 3)
    worker = await service.worker()
    ids = await call_of(service, calls, "one", "two", "three")
    before = worker.id
    await service.database.fetch("DELETE FROM workers WHERE id = $1", before)
    await eventually(lambda: len(calls.items) == 2, 20)
    await eventually(lambda: calls.cancelled == 1)
    calls.gate.set()
    await service.all_final(ids)
    rows = [await service.row(task_id) for task_id in ids]
    assert [(row["result"], row["attempt"]) for row in rows] == [("one", 2), ("two", 2), ("three", 2)]
    assert worker.id != before


async def test_a_middleware_that_gives_up_on_its_item_leaves_the_others_to_finish(
    service: Service, declare: Declare
) -> None:
    @service.registry.middlewares.middleware
    async def impatient(ctx: Context, payload: str, call_next: CallNext) -> Any:
        try:
            async with asyncio.timeout(0.5 if payload == "hasty" and calls.items else None):
                return await call_next(payload)
        except TimeoutError:
            return "gave up"

    calls = declare("async", 2)
    calls.items.append([])
    await service.worker()
    other = await service.submit("held", "other")
    hasty = await service.submit("held", "hasty")
    assert (await service.final(hasty))["result"] == "gave up"
    assert calls.left("hasty")
    calls.gate.set()
    assert (await service.final(other))["result"] == "other"
    assert calls.cancelled == 0
