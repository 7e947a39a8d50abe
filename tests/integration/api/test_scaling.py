"""/internal/scaling: one number for an autoscaler, to who may read queues, and never a zero for what is not known."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from bobrai.access import issuing
from bobrai.broker.memory import MemoryBroker
from bobrai.dispatcher.measuring import Measuring
from bobrai.domain.access import Grant
from bobrai.settings import load
from bobrai.store import queues
from bobrai.store.pool import Database
from tests.integration.api.conftest import Api, serving
from tests.integration.store.builders import claimed, submitted, worker
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

PATH = "/internal/scaling"


@pytest.fixture
async def scaling(database: OwnDatabase, store: Database, free_port: Callable[[], int]) -> AsyncIterator[Api]:
    """A client of an API that wants a credential, with a key of the least scope."""
    port = free_port()
    key = await issuing.create(store, "keda", Grant.of(["queues:read"]), by=SOMEBODY)
    async with (
        serving(database.url, port, auth={"anonymous_scopes": "none"}),
        Api(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        client.headers["Authorization"] = f"Bearer {key.secret}"
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
    answer = await scaling.get(PATH + query)
    assert (answer.status_code, answer.json()) == (200, {"backlog": backlog})


async def test_without_a_key_it_says_nothing(scaling: Api, store: Database) -> None:
    await measure(store)
    del scaling.headers["Authorization"]
    assert kind(await scaling.get(PATH)) == (401, "unauthorized")


async def test_a_key_for_some_queues_gets_their_sum_and_one_for_some_tasks_gets_nothing(
    scaling: Api, store: Database
) -> None:
    await submitted(store, 2)
    await submitted(store, 3, queue="media")
    await measure(store)
    of_media = await issuing.create(store, "m", Grant.of(["queues:read"], queues=["med*"]), by=SOMEBODY)
    own = await issuing.create(store, "o", Grant.of(["queues:read"], own_tasks=True), by=SOMEBODY)
    scaling.headers["Authorization"] = f"Bearer {of_media.secret}"
    assert (await scaling.get(PATH)).json() == {"backlog": 3}
    assert kind(await scaling.get(f"{PATH}?queues=default")) == (404, "queue-not-found")
    scaling.headers["Authorization"] = f"Bearer {own.secret}"
    assert kind(await scaling.get(PATH)) == (403, "outside-grant")


async def test_what_nobody_measures_is_unknown(scaling: Api, store: Database) -> None:
    assert kind(await scaling.get(PATH)) == (503, "unknown")
    await measure(store)
    assert (await scaling.get(PATH)).status_code == 200
    await store.fetch("UPDATE queues SET measured_at = now() - interval '31 s' WHERE name = 'default'")
    assert kind(await scaling.get(f"{PATH}?queues=default")) == (503, "unknown")


async def test_queues_that_do_not_exist_are_no_zero(scaling: Api, store: Database) -> None:
    await measure(store)
    assert kind(await scaling.get(f"{PATH}?queues=mispelt")) == (404, "queue-not-found")


async def test_it_is_no_part_of_the_public_description(scaling: Api) -> None:
    description, page = await asyncio.gather(scaling.get("/api/openapi.json"), scaling.get("/docs"))
    assert description.status_code == page.status_code == 200
    assert "scaling" not in description.text.lower()
    assert PATH not in page.text
