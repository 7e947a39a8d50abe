"""/internal/scaling: one number for an autoscaler, to who has the token, and never a zero for what is not known."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from bobrai.broker.memory import MemoryBroker
from bobrai.dispatcher.measuring import Measuring
from bobrai.settings import load
from bobrai.store import queues
from bobrai.store.pool import Database
from tests.integration.api.conftest import Api, serving
from tests.integration.store.builders import claimed, submitted, worker
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

TOKEN = 'a "token" of any kind:é'
PATH = "/internal/scaling"
BEARER = {"Authorization": f"Bearer {TOKEN}".encode()}


@pytest.fixture
async def scaling(database: OwnDatabase, store: Database, free_port: Callable[[], int]) -> AsyncIterator[Api]:
    """A client of an API that knows the token, which the client does not show by itself."""
    port = free_port()
    async with (
        serving(database.url, port, scaling_token=TOKEN),
        Api(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        await eventually(lambda: _is_ready(client))
        yield client


async def _is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def measure(store: Database) -> None:
    """Measure as the dispatcher does, once."""
    broker = MemoryBroker()
    await broker.start()
    await Measuring(load(), store, broker).run_once()
    await broker.close()


def kind(answer: httpx.Response) -> Any:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


@pytest.mark.parametrize(
    ("query", "backlog"),
    [("", 5), ("?queues=default", 2), ("?queues=default,media", 5), ("?queues=media,%20never", 3), ("?queues=mail", 0)],
)
async def test_it_is_the_sum_of_what_is_due_and_runs(scaling: Api, store: Database, query: str, backlog: int) -> None:
    await queues.ensure(store, ["mail"])
    first, _ = await submitted(store, 2)
    await submitted(store, 3, queue="media")
    await submitted(store, delay_seconds=3600.0)
    await claimed(store, await worker(store), first)
    await measure(store)
    answer = await scaling.get(PATH + query, headers=BEARER)
    assert (answer.status_code, answer.json()) == (200, {"backlog": backlog})


@pytest.mark.parametrize("shown", [None, "Bearer", "Bearer wrong", TOKEN.encode(), f"bearer {TOKEN}x".encode()])
async def test_without_the_token_it_says_nothing(scaling: Api, store: Database, shown: Any) -> None:
    await measure(store)
    answer = await scaling.get(PATH, headers={} if shown is None else {"Authorization": shown})
    assert kind(answer) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_without_a_setting_the_path_does_not_exist(api: Api, store: Database) -> None:
    await measure(store)
    for shown in (f"Bearer {TOKEN}".encode(), b"Bearer", b""):
        assert kind(await api.get(PATH, headers={"Authorization": shown})) == (404, "not-found")


async def test_what_nobody_measures_is_unknown(scaling: Api, store: Database) -> None:
    assert kind(await scaling.get(PATH, headers=BEARER)) == (503, "unknown")
    await measure(store)
    assert (await scaling.get(PATH, headers=BEARER)).status_code == 200
    await store.fetch("UPDATE queues SET measured_at = now() - interval '31 s' WHERE name = 'default'")
    assert kind(await scaling.get(f"{PATH}?queues=default", headers=BEARER)) == (503, "unknown")


async def test_queues_that_do_not_exist_are_no_zero(scaling: Api, store: Database) -> None:
    await measure(store)
    assert kind(await scaling.get(f"{PATH}?queues=mispelt", headers=BEARER)) == (404, "queue-not-found")


async def test_it_is_no_part_of_the_public_description(scaling: Api) -> None:
    description, page = await asyncio.gather(scaling.get("/api/openapi.json"), scaling.get("/docs"))
    assert description.status_code == page.status_code == 200
    assert "scaling" not in description.text.lower()
    assert PATH not in page.text
