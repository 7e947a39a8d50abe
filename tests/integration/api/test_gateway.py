"""Whom the API believes about its own address, and what it makes of a prefix that is none."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bobrai.domain.errors import ConfigurationError
from bobrai.store.pool import Database
from tests.integration.api.conftest import Api, serving
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

FORWARDED = {
    "X-Forwarded-Prefix": "/bobrai",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "tasks.example.org",
}


@asynccontextmanager
async def serve(database: OwnDatabase, port: int, **settings: str) -> AsyncIterator[Api]:
    """A client of an API with these settings."""
    async with serving(database.url, port, **settings), Api(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        await eventually(lambda: ready(client))
        yield client


async def ready(client: Api) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def location(client: Api, **headers: str) -> str:
    """Where a task is that was submitted with these headers."""
    answer = await client.post("/api/v1/tasks", json={"payload": "x", "type": "echo"}, headers=headers)
    assert answer.status_code == 201
    return answer.headers["location"].rpartition("/")[0]


async def test_a_trusted_proxy_says_where_the_client_is(
    database: OwnDatabase, store: Database, free_port: Callable[[], int]
) -> None:
    async with serve(database, free_port(), trusted_proxies="10.0.0.0/8, 127.0.0.1") as client:
        assert await location(client, **FORWARDED) == "/bobrai/api/v1/tasks"
        assert await location(client) == "/api/v1/tasks"
        page = (await client.get("/docs", headers=FORWARDED)).text
        assert "curl -X POST https://tasks.example.org/bobrai/api/v1/tasks" in page
        # one that begins like our own paths can only have been stripped
        assert await location(client, **{"X-Forwarded-Prefix": "/api"}) == "/api/api/v1/tasks"


async def test_nobody_else_is_believed(database: OwnDatabase, store: Database, free_port: Callable[[], int]) -> None:
    for trusted in ("", "10.0.0.0/8,::1"):
        async with serve(database, free_port(), trusted_proxies=trusted) as client:
            assert await location(client, **FORWARDED) == "/api/v1/tasks"
            page = (await client.get("/docs", headers=FORWARDED)).text
            assert "example.org" not in page
            assert (await client.get("/api/openapi.json", headers=FORWARDED)).json()["servers"] == [{"url": "/"}]


@pytest.mark.parametrize(
    "prefix", ["//evil.example", "/a/../b", "/..", "evil", "/a b", "/a%2f", "/<b>", "/" + "x" * 300]
)
async def test_a_forwarded_prefix_that_leads_elsewhere_is_ignored(
    database: OwnDatabase, store: Database, free_port: Callable[[], int], prefix: str
) -> None:
    async with serve(database, free_port(), trusted_proxies="127.0.0.1") as client:
        assert await location(client, **{"X-Forwarded-Prefix": prefix}) == "/api/v1/tasks"
        hostile = {"X-Forwarded-Host": "<script>", "X-Forwarded-Proto": "javascript"}
        page = (await client.get("/docs", headers=hostile)).text
        assert "<script>" not in page
        assert "javascript" not in page


async def test_with_the_setting_requests_come_with_the_prefix_or_without(
    database: OwnDatabase, store: Database, free_port: Callable[[], int]
) -> None:
    async with serve(database, free_port(), root_path="/teams/bobrai") as client:
        assert await location(client) == "/teams/bobrai/api/v1/tasks"
        for prefix in ("", "/teams/bobrai"):
            assert (await client.get(f"{prefix}/api/v1/tasks/1")).status_code == 200
            assert (await client.get(f"{prefix}/")).headers["location"] == "/teams/bobrai/docs"
        assert (await client.get("/teams/bobrai")).headers["location"] == "/teams/bobrai/docs"
        for path in ("/teams/bobraiapi/v1/tasks", "/teams", "/teams/api/v1/tasks"):
            assert (await client.get(path)).status_code == 404


async def test_a_root_path_like_one_of_our_own_is_refused(database: OwnDatabase, free_port: Callable[[], int]) -> None:
    with pytest.raises(ConfigurationError, match=r"BOBRAI_API_ROOT_PATH: /tasks/x begins like a path of the service"):
        async with serving(database.url, free_port(), root_path="/tasks/x"):
            pass
