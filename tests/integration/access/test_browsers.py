"""Where no credential is needed, a page in somebody's browser may still not act for them."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bobrai.store.pool import Database
from tests.integration.access.conftest import CLOSED, Keys, bearer
from tests.integration.api.conftest import Api, client_of
from tests.support.databases import Database as OwnDatabase

TASKS = "/api/v1/tasks"
PAGE = "https://app.example.org"


@pytest.fixture
async def opened(database: OwnDatabase, store: Database, free_port: Callable[[], int]) -> AsyncIterator[Api]:
    """A client of an API as `make run` has it: open, on the loopback."""
    async with client_of(database.url, free_port()) as client:
        yield client


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param({"Sec-Fetch-Site": "cross-site"}, id="another site"),
        pytest.param({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}, id="another port"),
        pytest.param({"Sec-Fetch-Site": "cross-site", "Origin": "null"}, id="a sandboxed page"),
        pytest.param({"Origin": PAGE}, id="a browser that does not say the site"),
        pytest.param({"Origin": "null"}, id="a sandboxed page in such a browser"),
    ],
)
async def test_a_page_of_another_origin_changes_nothing_without_a_credential(
    opened: Api, keys: Keys, sent: dict[str, str]
) -> None:
    task_id = await opened.submit()
    changes = {
        ("POST", TASKS): {"payload": 1, "type": "echo"},
        ("POST", f"{TASKS}/{task_id}/cancel"): None,
        ("POST", f"{TASKS}/{task_id}/replay"): None,
        ("PUT", "/api/v1/queues/mail"): None,
        ("POST", "/api/v1/keys"): {"name": "mine", "scopes": ["admin"]},
    }
    for (method, path), body in changes.items():
        answer = await opened.request(method, path, json=body, headers=sent)
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:bobrai:problem:cross-origin"), path
        assert "BOBRAI_API_CORS_ORIGINS" in answer.json()["detail"]
    task = await opened.get(f"{TASKS}/{task_id}", headers=sent)  # which the browser keeps from the page
    assert (task.status_code, task.json()["status"]) == (200, "pending")
    secret = (await keys.make()).secret  # a page that shows one is meant to
    assert (await opened.post(f"{TASKS}/{task_id}/cancel", headers={**sent, **bearer(secret)})).status_code == 200


async def test_programs_and_our_own_pages_go_on_as_they_are(opened: Api) -> None:
    own = str(opened.base_url).rstrip("/")
    for sent in (
        {},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": own},
        {"Origin": own},
        {"Origin": own.upper()},
    ):
        answer = await opened.post(TASKS, json={"payload": 1, "type": "echo"}, headers=sent)
        assert answer.status_code == 201, sent


@pytest.mark.parametrize(("origins", "status"), [(f"https://other.example.org,{PAGE}", 201), ("*", 403)])
async def test_a_page_whose_origin_is_named_may_do_what_needs_no_credential(
    database: OwnDatabase, store: Database, free_port: Callable[[], int], origins: str, status: int
) -> None:
    async with client_of(database.url, free_port(), cors_origins=origins) as api:
        sent = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
        assert (await api.post(TASKS, json={"payload": 1, "type": "echo"}, headers=sent)).status_code == status


async def test_on_the_loopback_a_name_that_was_made_to_lead_here_gets_nothing(opened: Api, keys: Keys) -> None:
    for host in ("evil.example", "evil.example:8001", "localhost.evil.example", "192.168.0.7", "[2001:db8::1]:8001"):
        for path in (TASKS, "/docs", "/api/openapi.json"):
            answer = await opened.get(path, headers={"Host": host})
            assert (answer.status_code, answer.json()["type"]) == (403, "urn:bobrai:problem:foreign-host"), host
            assert "BOBRAI_AUTH_ANONYMOUS_HOSTS" in answer.json()["detail"]
        wish = {"name": "mine", "scopes": ["admin"]}
        assert (await opened.post("/api/v1/keys", json=wish, headers={"Host": host})).status_code == 403
        assert (await opened.get("/livez", headers={"Host": host})).status_code == 200
        assert (await opened.get("/metrics", headers={"Host": host})).status_code == 403  # which names queues
        shown = bearer((await keys.make()).secret)
        assert (await opened.get(TASKS, headers={"Host": host, **shown})).status_code == 200
    for host in (
        "localhost",
        "LOCALHOST:8001",
        "localhost.:8001",
        "bobrai.localhost",
        "127.0.0.1",
        "[::1]:8001",
        "[::1]",
    ):
        assert (await opened.get(TASKS, headers={"Host": host})).status_code == 200, host


@pytest.mark.parametrize(
    ("settings", "served", "refused"),
    [
        pytest.param(
            {"auth": {"anonymous_hosts": "Bobrai.internal,*.example.org,10.0.0.7,[2001:db8::1]"}},
            ["bobrai.internal:80", "a.example.org", "10.0.0.7:8001", "[2001:db8::1]:8001"],
            ["localhost", "example.org", "xexample.org", "evil.example"],
            id="named",
        ),
        pytest.param({"auth": {"anonymous_hosts": "*"}}, ["evil.example", "localhost"], [], id="any"),
        pytest.param({"trusted_proxies": "10.0.0.0/8"}, ["evil.example", "localhost"], [], id="behind a proxy"),
    ],
)
async def test_the_names_of_an_open_service_are_a_setting(
    database: OwnDatabase,
    store: Database,
    free_port: Callable[[], int],
    settings: dict[str, Any],
    served: list[str],
    refused: list[str],
) -> None:
    async with client_of(database.url, free_port(), **settings) as api:
        assert [(await api.get(TASKS, headers={"Host": each})).status_code for each in served] == [200] * len(served)
        assert [(await api.get(TASKS, headers={"Host": each})).status_code for each in refused] == [403] * len(refused)
        scraped = [(await api.get("/metrics", headers={"Host": each})).status_code for each in (*served, *refused)]
        assert set(scraped) == {200}  # by addresses


async def test_a_closed_service_asks_for_a_credential_under_every_name(
    database: OwnDatabase, store: Database, free_port: Callable[[], int]
) -> None:
    async with client_of(database.url, free_port(), auth=CLOSED) as api:
        answer = await api.post(TASKS, json={}, headers={"Host": "evil.example", "Sec-Fetch-Site": "cross-site"})
        assert (answer.status_code, answer.json()["scope"]) == (401, "tasks:submit")
        for path in ("/docs", "/api/openapi.json", "/metrics"):
            assert (await api.get(path, headers={"Host": "bobrai.example.org"})).status_code == 200
