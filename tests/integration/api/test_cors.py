"""What the API tells browsers of pages of other origins: nothing unless it is set, and then in every answer."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from bobrai.store.pool import Database
from tests.integration.api.conftest import Api, client_of
from tests.support.databases import Database as OwnDatabase

PAGE = "https://app.example.org"
STRANGER = "https://evil.example.org"
TASKS = "/api/v1/tasks"


def ask(method: str = "POST", headers: str = "authorization,content-type,idempotency-key") -> dict[str, str]:
    """What a browser sends before the request itself."""
    return {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}


def told(answer: httpx.Response) -> dict[str, str]:
    """What the answer says to browsers."""
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.fixture
async def shared(database: OwnDatabase, store: Database, free_port: Callable[[], int]) -> AsyncIterator[Api]:
    """A client of an API for the pages of two origins, which wants a credential."""
    auth = {"anonymous_scopes": "tasks:submit,tasks:read", "anonymous_rate": "30/h"}
    async with client_of(database.url, free_port(), cors_origins=f"{PAGE},http://localhost:3000", auth=auth) as client:
        yield client


async def test_by_default_nobody_is_told_anything_and_options_is_no_method(api: Api) -> None:
    preflight = await api.options(TASKS, headers={"Origin": PAGE, **ask()})
    assert preflight.status_code == 405
    assert "OPTIONS" not in preflight.headers["allow"]
    submitted = await api.post(TASKS, json={"payload": "x", "type": "echo"}, headers={"Origin": PAGE})
    assert submitted.status_code == 403
    for answer in (preflight, submitted):
        assert told(answer) == {}
        assert "vary" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_a_browser_that_asks_for_a_known_page_is_told_what_it_may_send(shared: Api, method: str) -> None:
    headers = "authorization,content-type,idempotency-key,if-none-match,x-request-id,traceparent"
    for origin in (PAGE, "http://localhost:3000"):
        answer = await shared.options(TASKS, headers={"Origin": origin, **ask(method, headers)})
        assert answer.status_code == 200
        said = told(answer)
        assert said["access-control-allow-origin"] == origin
        assert method in said["access-control-allow-methods"].split(", ")
        assert set(headers.split(",")) <= set(said["access-control-allow-headers"].lower().split(", "))
        assert said["access-control-max-age"] == "600"
        assert "access-control-allow-credentials" not in said
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": STRANGER, **ask()},
        {"Origin": "null", **ask()},
        {"Origin": f"{PAGE}.evil.org", **ask()},
        {"Origin": "http://app.example.org", **ask()},
        {"Origin": f"{PAGE}:8443", **ask()},
    ],
)
async def test_a_page_of_any_other_origin_is_not_let_in(shared: Api, headers: dict[str, str]) -> None:
    answer = await shared.options(TASKS, headers=headers)
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers
    read = await shared.get(TASKS, headers={"Origin": headers["Origin"]})
    assert read.status_code == 200
    assert "access-control-allow-origin" not in read.headers
    assert "Origin" in read.headers["vary"]


async def test_what_no_operation_takes_is_refused_to_the_browser(shared: Api) -> None:
    for asked in (ask("TRACE"), ask("POST", "x-own-header")):
        answer = await shared.options(TASKS, headers={"Origin": PAGE, **asked})
        assert answer.status_code == 400


async def test_a_known_page_may_read_every_answer_refusals_too_and_the_headers_that_matter(shared: Api) -> None:
    mine = {"Origin": PAGE}
    answers = {
        201: await shared.post(TASKS, json={"payload": "x", "type": "echo"}, headers=mine),
        404: await shared.get(f"{TASKS}/999999", headers=mine),
        405: await shared.put(TASKS, headers=mine),
        401: await shared.get("/api/v1/keys", headers={**mine, "Authorization": "Bearer letmein"}),
        422: await shared.post(TASKS, json={}, headers=mine),
    }
    for _ in range(40):
        answers[429] = await shared.get(TASKS, headers=mine)
    for code, answer in answers.items():
        assert answer.status_code == code
        said = told(answer)
        assert said["access-control-allow-origin"] == PAGE
        exposed = said["access-control-expose-headers"].split(", ")
        assert {"Location", "ETag", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID"} <= set(exposed)
        assert "access-control-allow-credentials" not in said


async def test_a_star_lets_every_page_in_without_what_a_browser_keeps(
    database: OwnDatabase, store: Database, free_port: Callable[[], int]
) -> None:
    async with client_of(database.url, free_port(), cors_origins="*") as api:
        asked = await api.options(TASKS, headers={"Origin": STRANGER, **ask()})
        assert (asked.status_code, told(asked)["access-control-allow-origin"]) == (200, "*")
        answer = await api.get(TASKS, headers={"Origin": STRANGER, "Cookie": "a=b"})
        assert told(answer)["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


async def test_it_is_the_same_under_a_path_whether_a_gateway_strips_it_or_not(
    database: OwnDatabase, store: Database, free_port: Callable[[], int]
) -> None:
    async with client_of(database.url, free_port(), cors_origins=PAGE, root_path="/bobrai") as api:
        for path in (TASKS, f"/bobrai{TASKS}"):
            asked = await api.options(path, headers={"Origin": PAGE, **ask()})
            assert (asked.status_code, told(asked)["access-control-allow-origin"]) == (200, PAGE)
            made = await api.post(path, json={"payload": "x", "type": "echo"}, headers={"Origin": PAGE})
            assert (made.status_code, told(made)["access-control-allow-origin"]) == (201, PAGE)


async def test_options_that_no_browser_asked_is_still_no_method(shared: Api) -> None:
    assert (await shared.options(TASKS)).status_code == 405
    assert (await shared.options(TASKS, headers={"Origin": PAGE})).status_code == 405


@pytest.mark.parametrize("path", [TASKS, "/livez", "/api/openapi.json", "/nothing", "/docs"])
async def test_no_answer_is_taken_for_anything_but_what_it_says(api: Api, path: str) -> None:
    answer = await api.get(path)
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


async def test_the_page_sends_no_referrer_and_lists_of_tasks_are_kept_nowhere(api: Api) -> None:
    page = await api.get("/docs")
    assert page.headers["referrer-policy"] == "no-referrer"
    policy = page.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert (await api.get(TASKS)).headers["cache-control"] == "no-store"
    task_id = await api.submit()
    first = await api.get(f"{TASKS}/{task_id}")
    assert first.headers["cache-control"] == "no-cache"
    again = await api.get(f"{TASKS}/{task_id}", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
