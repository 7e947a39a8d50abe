"""The API in the test's own process, on real PostgreSQL and a real port, so that a test can look at both sides."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from bobrai.api.main import serve
from bobrai.domain.task import TaskType
from bobrai.runtime.lifecycle import Stop
from bobrai.settings import load
from bobrai.store import task_types
from bobrai.store.pool import Database
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

NUMBERS = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


class Api(httpx.AsyncClient):
    """A client of the API, with the few calls that most tests make."""

    async def submit(self, payload: Any = "x", **fields: Any) -> int:
        """Submit a task that must be accepted."""
        answer = await self.post("/api/v1/tasks", json={"payload": payload, "type": "echo", **fields})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["task_id"])


async def announce(store: Database) -> None:
    """The types that the tests use: two that take anything, one with a schema."""
    await task_types.announce(
        store,
        [
            TaskType(name="demo"),
            TaskType(name="echo"),
            TaskType(name="numbers", queue="media", payload_schema=json.dumps(NUMBERS), timeout_seconds=7.0),
        ],
    )


@asynccontextmanager
async def serving(
    url: str, port: int, *, auth: Mapping[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Stop]:
    """The API until the end of the block."""
    stop, listening = Stop(), asyncio.Event()
    loaded = load(
        database={"url": url, "direct_url": url},
        api={"bind": f"127.0.0.1:{port}", "refresh_seconds": 0.1, **settings},
        auth=auth or {},
    )
    running = asyncio.create_task(serve(loaded, stop, on_listening=lambda _port: listening.set()))
    try:
        await asyncio.wait({running, asyncio.ensure_future(listening.wait())}, return_when=asyncio.FIRST_COMPLETED)
        yield stop
    finally:
        stop.request("the test is over")
        await running


@pytest.fixture
async def store(database: OwnDatabase) -> AsyncIterator[Database]:
    """The product's pool on the API's database, with the types announced."""
    store = Database(load(database={"url": database.url, "direct_url": database.url}).database, name="bobrai-test")
    await store.open()
    await announce(store)
    yield store
    await store.close()


@pytest.fixture
async def api(database: OwnDatabase, store: Database, free_port: Callable[[], int]) -> AsyncIterator[Api]:
    """A client of an API on the test's own database."""
    async with client_of(database.url, free_port()) as client:
        yield client


@asynccontextmanager
async def client_of(
    url: str, port: int, *, auth: Mapping[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Api]:
    """A client of an API with these settings, once it is ready."""
    async with (
        serving(url, port, auth=auth, **settings),
        Api(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        await eventually(lambda: _is_ready(client))
        yield client


async def _is_ready(client: Api) -> bool:
    return (await client.get("/readyz")).status_code == 200
