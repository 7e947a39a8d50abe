"""A worker and a dispatcher in the test's own process, on a real database, with handlers that the test declares."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import msgspec

from bobrai import Retry
from bobrai.broker.port import Broker
from bobrai.dispatcher import main as dispatcher_main
from bobrai.dispatcher.relay import Relay
from bobrai.domain.limiting import Limits
from bobrai.domain.task import NewTask
from bobrai.handlers.registry import Registry
from bobrai.runtime.lifecycle import Stop
from bobrai.settings import Settings, load
from bobrai.store import queues, submission, tasks
from bobrai.store.pool import Database
from bobrai.worker import main as worker_main
from bobrai.worker.worker import Worker
from tests.support.eventually import eventually

FINAL = {"done", "failed", "cancelled"}
QUICK = Retry(max_attempts=3, delay_seconds=0.02, max_delay_seconds=0.05)


@contextlib.contextmanager
def _seen(module: ModuleType, name: str, made: list[Any]) -> Iterator[None]:
    """Note what is made of a class of a module meanwhile."""
    original = getattr(module, name)

    class Seen(original):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    setattr(module, name, Seen)
    try:
        yield
    finally:
        setattr(module, name, original)


class RunningWorker:
    """One `worker.main.serve`, with a look inside."""

    def __init__(self, serving: "asyncio.Task[None]", stop: Stop, made: list[Worker]) -> None:
        self.serving = serving
        self.stop = stop
        self.has_ended = False  # and the test knows how
        self._made = made

    @property
    def inside(self) -> Worker:
        """The worker that serves."""
        return self._made[0]

    @property
    def id(self) -> int | None:
        """Its id now."""
        return self.inside.lease.worker_id

    async def ended(self, timeout: float = 20) -> None:
        """Wait until it has drained; raises what it raised."""
        try:
            await asyncio.wait_for(asyncio.shield(self.serving), timeout)
        finally:
            self.has_ended = self.serving.done()


class Service:
    """What a test talks to."""

    def __init__(self, url: str, new_broker: Callable[[], Broker]) -> None:
        self.url = url
        self.registry = Registry()
        self.task = self.registry.task
        self._new_broker = new_broker
        self.database = Database(load(database={"url": url}).database, pool_size=4, name="test")
        self._stack = contextlib.AsyncExitStack()
        self._dispatcher_stop = Stop()
        self.relays: list[Relay] = []
        self.workers: list[RunningWorker] = []

    def settings(self, **worker: Any) -> Settings:
        worker = {
            "health_bind": "127.0.0.1:0",
            "concurrency": 10,
            "drain_seconds": 5,
            "heartbeat_seconds": 0.2,
            **worker,
        }
        return load(
            database={"url": worker.pop("url", self.url)},
            worker=worker,
            dispatcher={"health_bind": "127.0.0.1:0", "reap_seconds": 0.2, "poll_seconds": 0.2},
        )

    async def dispatch(self) -> None:
        """Start the dispatcher."""
        broker = self._new_broker()
        with _seen(dispatcher_main, "Relay", self.relays):
            serving = asyncio.create_task(dispatcher_main.serve(self.settings(), broker, self._dispatcher_stop))
            await eventually(lambda: self.relays or serving.done())

        async def end() -> None:
            self._dispatcher_stop.request("the test is over")
            await asyncio.wait_for(serving, 20)
            await broker.close()

        self._stack.push_async_callback(end)

    async def worker(self, *, wait: bool = True, **settings: Any) -> RunningWorker:
        """Start a worker and wait until it consumes; it is drained at the end of the test."""
        broker, stop = self._new_broker(), Stop()
        made: list[Worker] = []
        with _seen(worker_main, "Worker", made):
            serving = asyncio.create_task(worker_main.serve(self.settings(**settings), broker, self.registry, stop))
            await eventually(lambda: made or serving.done())

        async def end() -> None:
            stop.request("the test is over")
            if not running.has_ended:
                await asyncio.wait_for(serving, 30)
            await broker.close()

        running = RunningWorker(serving, stop, made)
        self._stack.push_async_callback(end)
        self.workers.append(running)
        if wait:
            await eventually(lambda: running.inside.is_consuming and running.id, message="the worker consumes")
        return running

    async def limit(self, limits: dict[str, Any] | None, *, queue: str = "default", type_: str = "") -> None:
        """Set the limits of a queue or type, and wait until dispatcher and workers know of them."""
        await queues.ensure(self.database, [queue])
        table, name = ("task_types", type_) if type_ else ("queues", queue)
        text = None if limits is None else json.dumps(limits)
        rows = await self.database.fetch(f"UPDATE {table} SET limits = $2 WHERE name = $1 RETURNING name", name, text)
        assert rows, f"there is no {name} in {table}"
        await eventually(
            lambda: self._all_know(name, type_ != "", None if text is None else msgspec.json.decode(text, type=Limits))
        )

    def _all_know(self, name: str, is_type: bool, limits: Limits | None) -> bool:
        relay = self.relays[-1]
        relay.wake()
        workers = [each.inside._limited._names for each in self.workers if not each.has_ended]
        known = relay._fleet.limited
        return (known.types if is_type else known.queues).get(name) == limits and all(
            (name in (names.types if is_type else names.queues)) == (limits is not None) for names in workers
        )

    async def submit(self, type_: str = "echo", payload: Any = None, **more: Any) -> int:
        """Submit one task and return its id."""
        return (await self.submit_many(1, type_, payload, **more))[0]

    async def submit_many(self, count: int, type_: str = "echo", payload: Any = None, **more: Any) -> list[int]:
        text = more.pop("text", None) or json.dumps(payload)
        more = {"retry": QUICK, **more}
        return await submission.submit(self.database, [NewTask(type=type_, payload=text, **more)] * count)

    async def row(self, task_id: int) -> dict[str, Any]:
        """The task's row, with JSON columns decoded."""
        row = dict((await self.database.fetch("SELECT * FROM tasks WHERE id = $1", task_id))[0])
        for column in ("result", "errors", "progress"):
            row[column] = row[column] and json.loads(row[column])
        return row

    async def final(self, task_id: int, timeout: float = 15) -> dict[str, Any]:
        """The task's row once it is final."""
        await self.reached(task_id, *FINAL, timeout=timeout)
        return await self.row(task_id)

    async def reached(self, task_id: int, *statuses: str, timeout: float = 15) -> None:
        async def there() -> bool:
            return (await self.row(task_id))["status"] in statuses

        await eventually(there, timeout, message=f"task {task_id} is {' or '.join(statuses)}")

    async def run(self, type_: str, payload: Any = None, **more: Any) -> dict[str, Any]:
        """Submit, wait, and return the final row."""
        return await self.final(await self.submit(type_, payload, **more))

    async def all_final(self, ids: Sequence[int], timeout: float = 30) -> None:
        async def there() -> bool:
            return len(await tasks.final_of(self.database, ids)) == len(ids)

        await eventually(there, timeout, message=f"{len(ids)} tasks are final")

    async def count(self, condition: str = "true", *arguments: Any) -> int:
        rows = await self.database.fetch(f"SELECT count(*) FROM tasks WHERE {condition}", *arguments)
        return int(rows[0][0])

    async def nothing_is_left(self) -> None:
        """No claimed row, no hint in the outbox."""

        async def clean() -> bool:
            rows = await self.database.fetch(
                "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM tasks WHERE status = 'processing')"
            )
            return rows[0][0] == 0

        await eventually(clean, message="outbox empty, nothing processing")

    async def close(self) -> None:
        await self._stack.aclose()
        await self.database.close()


@contextlib.asynccontextmanager
async def serving(url: str, new_broker: Callable[[], Broker]) -> AsyncIterator[Service]:
    service = Service(url, new_broker)
    await service.database.open()
    try:
        await service.dispatch()
        yield service
    finally:
        await service.close()
