"""What the dispatcher's tests share: its settings, a pool, a broker that a test can take away, and the loops."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from bobrai.broker.memory import MemoryBroker
from bobrai.broker.port import OutgoingMessage
from bobrai.domain.errors import BrokerUnavailable
from bobrai.domain.message import Hint
from bobrai.settings import Settings, load
from bobrai.store.pool import Database
from tests.support.databases import Database as OwnDatabase


class Broker(MemoryBroker):
    """The in-process broker, which a test can take away, make refuse, or listen to."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.published: list[tuple[str, OutgoingMessage]] = []
        self.depths_asked = 0
        self.broken: set[str] = set()  # queues that nobody answers for

    def lose(self) -> None:
        """Be away, and forget every message."""
        self._up.clear()
        for queue in self._queues.values():
            queue.ready.clear()

    def come_back(self) -> None:
        """Be connected again."""
        self._up.set()

    async def publish(self, queue: str, messages: Sequence[OutgoingMessage]) -> list[bool]:
        """Note what was confirmed."""
        if queue in self.broken:
            raise BrokerUnavailable(f"nobody answers for {queue}")
        confirmed = await super().publish(queue, messages)
        self.published += [(queue, each) for each, sure in zip(messages, confirmed, strict=True) if sure]
        return confirmed

    async def depth(self, queue: str) -> int:
        """Count the questions."""
        self.depths_asked += 1
        if queue in self.broken:
            raise BrokerUnavailable(f"nobody answers for {queue}")
        return await super().depth(queue)

    def hints(self, queue: str | None = None) -> list[Hint]:
        """Every hint that was published, in order."""
        return [hint for name, message in self.published if queue in {None, name} for hint in message.hints]

    def consume(self, queue: str, messages: int) -> None:
        """Take ready messages away, as a worker would."""
        del self._store(queue).ready[:messages]


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    """A started broker."""
    broker = Broker()
    await broker.start()
    yield broker
    await broker.close()


@pytest.fixture
def settings_with(database: OwnDatabase, free_port: Callable[[], int]) -> Callable[..., Settings]:
    """Makes settings for this test's database; keywords are fields of the dispatcher's group."""

    def make(
        *, worker: dict[str, Any] | None = None, url: str = "", direct_url: str = "", **dispatcher: Any
    ) -> Settings:
        return load(
            database={"url": url or database.url, "direct_url": direct_url or database.url},
            dispatcher={"health_bind": f"127.0.0.1:{free_port()}", **dispatcher},
            worker=worker or {},
        )

    return make


@pytest.fixture
async def store(settings_with: Callable[..., Settings]) -> AsyncIterator[Database]:
    """A pool on this test's database."""
    store = Database(settings_with().database, name="bobrai-test")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def running() -> AsyncIterator[Callable[..., "asyncio.Task[None]"]]:
    """Starts coroutines and cancels them at the end."""
    tasks: list[asyncio.Task[None]] = []

    def start(coroutine: Any) -> "asyncio.Task[None]":
        tasks.append(asyncio.ensure_future(coroutine))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
