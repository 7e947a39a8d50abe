"""A request that has begun before its credential ended is not finished as if nothing had happened."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from bobrai.api.catalog import Catalog
from bobrai.store import keys as keys_of_store
from bobrai.store.pool import Database
from tests.integration.access.conftest import Keys, bearer, notify, refused
from tests.integration.api.conftest import Api
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

TASKS = "/api/v1/tasks"
# A principal is looked at again when a request has taken longer than half a second.
WHILE_SECONDS = 0.6


async def is_waited_for(api: Api) -> bool:
    """Whether one request waits for a task."""
    return "bobrai_task_waiters 1.0" in (await api.get("/metrics")).text


async def are_under_way(api: Api, number: int) -> bool:
    """Whether so many requests are, beside the one that asks."""
    return f"bobrai_http_requests_in_progress {number + 1}.0" in (await api.get("/metrics")).text


@asynccontextmanager
async def held(database: OwnDatabase, table: str) -> AsyncIterator[None]:
    """Whoever wants a table waits until the end of the block."""
    async with database.connect() as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


async def a_while() -> None:
    """Wait until a principal is looked at again."""
    until = time.monotonic() + WHILE_SECONDS
    await eventually(lambda: time.monotonic() > until)


async def revoked(api: Api, store: Database, key_id: str, secret: str) -> None:
    """End a key, and wait until the API knows."""
    assert await keys_of_store.revoke(store, key_id, by=SOMEBODY)
    await eventually(lambda: refused(api, secret, TASKS))


async def test_who_waits_for_a_task_with_a_key_that_ends_is_not_shown_it(api: Api, store: Database, keys: Keys) -> None:
    key, admin = await keys.make(), bearer((await keys.make()).secret)
    task = {"payload": "secret", "type": "echo"}
    task_id = (await api.post(TASKS, json=task, headers=bearer(key.secret))).json()["task_id"]
    path = f"{TASKS}/{task_id}"
    waiting = asyncio.create_task(api.get(path, params={"wait": 30}, headers=bearer(key.secret)))
    await eventually(lambda: is_waited_for(api))
    await a_while()
    await revoked(api, store, key.key_id, key.secret)
    assert (await api.post(f"{path}/cancel", headers=admin)).status_code == 200
    answer = await waiting
    assert (answer.status_code, answer.json()["detail"]) == (401, "This key was revoked")


async def test_who_waits_for_a_task_that_leaves_the_grant_is_not_shown_it(
    api: Api, store: Database, keys: Keys
) -> None:
    key, admin = await keys.make(types=["echo"]), bearer((await keys.make()).secret)
    task = {"payload": "secret", "type": "echo"}
    task_id = (await api.post(TASKS, json=task, headers=bearer(key.secret))).json()["task_id"]
    path = f"{TASKS}/{task_id}"
    waiting = asyncio.create_task(api.get(path, params={"wait": 30}, headers=bearer(key.secret)))
    await eventually(lambda: is_waited_for(api))
    await a_while()
    await store.fetch("UPDATE api_keys SET types = '{demo}' WHERE id = $1", key.key_id)
    await notify(store)

    async def is_known() -> bool:
        return (await api.get(path, headers=bearer(key.secret))).status_code == 404

    await eventually(is_known)
    assert (await api.post(f"{path}/cancel", headers=admin)).status_code == 200
    answer = await waiting
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:bobrai:problem:unavailable")
    assert "credential" in answer.json()["detail"]


async def test_a_body_that_comes_slowly_is_not_stored_for_a_key_that_has_ended(
    api: Api, store: Database, keys: Keys
) -> None:
    key = await keys.make()
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"type":"echo",'
        begun.set()
        await goes_on.wait()
        yield b'"payload":1}'

    async def submitted() -> httpx.Response:
        headers = {**bearer(key.secret), "Content-Type": "application/json"}
        return await api.post(TASKS, content=body(), headers=headers)

    submitting = asyncio.create_task(submitted())
    await begun.wait()
    await eventually(lambda: are_under_way(api, 1))
    await a_while()
    await revoked(api, store, key.key_id, key.secret)
    goes_on.set()
    answer = await submitting
    assert (answer.status_code, answer.json()["detail"]) == (401, "This key was revoked")
    assert await store.fetch("SELECT id FROM tasks") == []


async def test_a_batch_whose_turn_comes_late_is_not_stored_for_a_key_that_has_ended(
    api: Api, database: OwnDatabase, store: Database, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    its_turn, reread = asyncio.Event(), Catalog.reread

    async def watched(catalog: Catalog) -> None:
        its_turn.set()
        await reread(catalog)

    monkeypatch.setattr(Catalog, "reread", watched)
    key, other = await keys.make(), await keys.make()
    large = "x" * 9_000
    batch = {"tasks": [{"type": "echo", "payload": large}] * 200}
    unknown = {"tasks": [{"type": "no-such-type", "payload": large}] * 200}
    async with held(database, "task_types"):
        first = asyncio.create_task(api.post(f"{TASKS}/batch", json=unknown, headers=bearer(other.secret)))
        await its_turn.wait()  # whole, and looking for a type that nobody knows
        second = asyncio.create_task(api.post(f"{TASKS}/batch", json=batch, headers=bearer(key.secret)))
        await eventually(lambda: are_under_way(api, 2))
        await a_while()
        await revoked(api, store, key.key_id, key.secret)
    assert (await first).status_code == 422
    answer = await second
    assert (answer.status_code, answer.json()["detail"]) == (401, "This key was revoked")
    assert await store.fetch("SELECT id FROM tasks") == []


async def test_a_new_key_is_not_shown_to_an_administrator_who_has_ended(
    api: Api, database: OwnDatabase, store: Database, keys: Keys
) -> None:
    admin = await keys.make("admin")
    async with held(database, "audit"):
        wish = {"name": "a way back", "scopes": ["admin"]}
        making = asyncio.create_task(api.post("/api/v1/keys", json=wish, headers=bearer(admin.secret)))
        await eventually(lambda: are_under_way(api, 1))
        await a_while()
        await store.fetch("UPDATE api_keys SET revoked_at = now() WHERE id = $1", admin.key_id)
        await notify(store)
        await eventually(lambda: refused(api, admin.secret, "/api/openapi.json"))
    answer = await making
    assert answer.status_code == 401
    assert "key" not in answer.json()
