"""Reading over HTTP: tasks, pages, waiting, cancelling, replaying, queues, and what surrounds every request."""

import asyncio
import time
from typing import Any

import pytest

from bobrai.api.waiters import Waiters
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.loop import PeriodicLoop
from bobrai.store import tasks, workers
from bobrai.store.pool import Database
from tests.integration.api.conftest import Api
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

MEMBERS = [
    "id", "type", "queue", "payload", "status", "result", "error", "errors", "priority", "attempt", "max_attempts",
    "losses", "snoozes", "progress", "run_at", "deadline_at", "expires_at", "parent_id", "created_at", "updated_at",
    "started_at", "finished_at",
]  # fmt: skip
DONE = "UPDATE tasks SET status = 'done', result = $2, finished_at = now(), updated_at = now() WHERE id = $1"
FAILED = """UPDATE tasks SET status = 'failed', attempt = 1, finished_at = now(), updated_at = now(), errors =
    '[{"attempt":1,"type":"ValueError","message":"no such file","traceback":"…","reason":"error","at":"2030-01-01"}]'
    WHERE id = $1"""


async def test_a_task_has_exactly_these_members(api: Api) -> None:
    task = (await api.get(f"/api/v1/tasks/{await api.submit({'a': 1})}")).json()
    assert list(task) == MEMBERS
    assert (task["status"], task["payload"], task["result"], task["error"], task["errors"]) == (
        "pending", {"a": 1}, None, None, [],
    )  # fmt: skip
    assert task["created_at"].endswith("Z")


async def test_a_finished_task_shows_its_result_verbatim(api: Api, database: OwnDatabase) -> None:
    task_id = await api.submit()
    await database.execute(DONE, task_id, '{"z":1,  "a":1e2}')
    answer = await api.get(f"/api/v1/tasks/{task_id}")
    assert '"result":{"z":1,  "a":1e2},' in answer.text
    assert answer.json()["finished_at"] is not None


async def test_a_failed_task_says_why(api: Api, database: OwnDatabase) -> None:
    task_id = await api.submit()
    await database.execute(FAILED, task_id)
    task = (await api.get(f"/api/v1/tasks/{task_id}")).json()
    assert (task["error"], task["errors"][0]["type"], task["errors"][0]["attempt"]) == ("no such file", "ValueError", 1)


@pytest.mark.parametrize("task_id", ["999999", "0", "-1", "abc", "9223372036854775808", "1" * 400, "%00", "٣", "1.0"])
async def test_an_unknown_id_is_not_found(api: Api, task_id: str) -> None:
    for method, suffix in (("GET", ""), ("POST", "/cancel"), ("POST", "/replay")):
        answer = await api.request(method, f"/api/v1/tasks/{task_id}{suffix}")
        assert (answer.status_code, answer.json()["detail"]) == (404, "Task not found")


async def test_the_etag_changes_with_the_task_and_only_then(api: Api, database: OwnDatabase) -> None:
    task_id = await api.submit()
    path = f"/api/v1/tasks/{task_id}"
    tag = (await api.get(path)).headers["etag"]
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        same = await api.get(path, headers={"if-none-match": given})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert (await api.get(path, headers={"if-none-match": '"other"'})).status_code == 200
    for change in ("progress = '0.5'", "priority = 3"):
        await database.execute(f"UPDATE tasks SET {change} WHERE id = $1", task_id)
        changed = await api.get(path, headers={"if-none-match": tag})
        assert changed.status_code == 200
        tag = changed.headers["etag"]


async def test_head_is_get_without_the_body(api: Api) -> None:
    path = f"/api/v1/tasks/{await api.submit()}"
    full, head = await api.get(path), await api.head(path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", full.headers["etag"])


async def test_wait_returns_as_soon_as_the_task_is_final(api: Api, database: OwnDatabase) -> None:
    task_id = await api.submit()
    held = asyncio.create_task(api.get(f"/api/v1/tasks/{task_id}?wait=15"))
    await eventually(lambda: waiting(api, 1))
    started = time.monotonic()
    await database.execute(DONE, task_id, "1")
    assert (await held).json()["status"] == "done"
    assert time.monotonic() - started < 2


async def test_wait_returns_when_the_task_expires_and_says_so(api: Api, store: Database) -> None:
    task_id = await api.submit(expires_seconds=600)
    held = asyncio.create_task(api.get(f"/api/v1/tasks/{task_id}?wait=15"))
    await eventually(lambda: waiting(api, 1))
    await store.fetch("UPDATE tasks SET expires_at = now() WHERE id = $1", task_id)
    await tasks.end_overdue(store, [task_id])
    task = (await held).json()
    assert (task["status"], task["error"], task["errors"][0]["reason"]) == ("cancelled", None, "expired")
    assert task["finished_at"] >= task["expires_at"]


async def test_wait_returns_the_task_as_it_is_when_the_time_is_up(api: Api) -> None:
    task_id = await api.submit()
    started = time.monotonic()
    answer = await api.get(f"/api/v1/tasks/{task_id}?wait=0.3")
    assert (answer.status_code, answer.json()["status"]) == (200, "pending")
    assert 0.3 <= time.monotonic() - started < 5


async def test_a_client_that_leaves_is_not_waited_for(api: Api) -> None:
    task_id = await api.submit()
    _, writer = await asyncio.open_connection("127.0.0.1", api.base_url.port)
    writer.write(b"GET /tasks/%d?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n" % task_id)
    await eventually(lambda: waiting(api, 1))
    writer.close()
    await eventually(lambda: waiting(api, 0))


async def waiting(api: Api, wanted: int) -> bool:
    text = (await api.get("/metrics")).text
    return f"\nbobrai_task_waiters {wanted}.0\n" in text


class Counting:
    """A pool that counts its statements."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self.statements = 0

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        self.statements += 1
        return await self._store.fetch(query, *args, timeout=timeout)


async def test_a_thousand_waiters_cost_one_query_per_tick(store: Database, database: OwnDatabase) -> None:
    ids = [row["id"] for row in await database.fetch(
        "INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds) "
        "SELECT 'echo', 'default', '1', 3, '{}', 1 FROM generate_series(1, 1000) RETURNING id"
    )]  # fmt: skip
    counting, stop = Counting(store), Stop()
    waiters = Waiters(counting, 0.05)  # type: ignore[arg-type]
    loop = PeriodicLoop("waiters", 0.05, waiters.run_once)
    waiters.wake = loop.wake
    running = asyncio.create_task(loop.run(stop))
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    started = time.monotonic()
    held = [asyncio.create_task(waiters.wait(task_id, 30, gone)) for task_id in ids]
    await eventually(lambda: time.monotonic() - started > 2)
    elapsed = time.monotonic() - started
    # a look every 50 ms, and for the first quarter second one every 5 ms
    assert 5 <= counting.statements <= elapsed / 0.05 + 0.25 / 0.005 + 5
    await database.execute("UPDATE tasks SET status = 'done', finished_at = now()")
    await asyncio.wait_for(asyncio.gather(*held), 5)
    calm = counting.statements
    stop.request("the test is over")
    await running
    assert counting.statements <= calm + 1


async def test_pages_neither_skip_nor_repeat_while_tasks_arrive(api: Api) -> None:
    before = {await api.submit(n) for n in range(25)}
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page = (await api.get("/api/v1/tasks", params={"limit": 7, **({"cursor": cursor} if cursor else {})})).json()
        seen += [task["id"] for task in page["tasks"]]
        await api.submit("late")
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen))
    assert before <= set(seen)
    assert seen == sorted(seen, reverse=True)


async def test_the_last_page_has_no_cursor_even_when_it_is_full(api: Api) -> None:
    ids = [await api.submit(n) for n in range(4)]
    first = (await api.get("/api/v1/tasks?limit=2")).json()
    last = (await api.get("/api/v1/tasks", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [task["id"] for task in first["tasks"] + last["tasks"]] == ids[::-1]
    assert last["next_cursor"] is None


async def test_a_page_of_large_tasks_ends_early_and_the_next_goes_on(api: Api) -> None:
    for _ in range(3):
        await api.post("/api/v1/tasks/batch", json={"tasks": [{"payload": [0] * 60_000, "type": "echo"}] * 20})
    seen: list[int] = []
    page = {"next_cursor": ""}
    while page["next_cursor"] is not None:
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else {}
        page = (await api.get("/api/v1/tasks", params={"limit": 500, **cursor})).json()
        assert 0 < len(page["tasks"]) < 60
        seen += [task["id"] for task in page["tasks"]]
    assert len(seen) == len(set(seen)) == 60


async def test_lists_are_filtered(api: Api, database: OwnDatabase) -> None:
    plain, media = await api.submit(), await api.submit({"n": 1}, type="numbers")
    await database.execute(DONE, plain, "1")
    await database.execute("UPDATE tasks SET parent_id = $1 WHERE id = $2", plain, media)
    moment = (await api.get(f"/api/v1/tasks/{media}")).json()["created_at"]
    for query, expected in (
        ({"status": "done"}, [plain]), ({"type": "numbers"}, [media]), ({"queue": "media"}, [media]),
        ({"created_before": moment}, [plain]), ({"created_after": moment}, []),
        ({"status": "done", "queue": "media"}, []), ({}, [media, plain]),
        ({"parent_id": plain}, [media]), ({"parent_id": media}, []),
    ):  # fmt: skip
        answer = await api.get("/api/v1/tasks", params=query)
        assert [task["id"] for task in answer.json()["tasks"]] == expected, query
        assert all(task["parent_id"] == (plain if task["id"] == media else None) for task in answer.json()["tasks"])


async def test_cancelling_a_pending_task_is_final_and_idempotent(api: Api, database: OwnDatabase) -> None:
    task_id = await api.submit()
    for _ in range(2):
        answer = await api.post(f"/api/v1/tasks/{task_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert await database.fetchval("SELECT count(*) FROM outbox") == 0


async def test_a_task_that_ended_otherwise_cannot_be_cancelled(api: Api, database: OwnDatabase) -> None:
    task_id = await api.submit()
    await database.execute(DONE, task_id, "1")
    answer = await api.post(f"/api/v1/tasks/{task_id}/cancel")
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")


async def test_a_final_task_can_be_replayed_and_no_other(api: Api, database: OwnDatabase) -> None:
    task_id = await api.submit()
    assert (await api.post(f"/api/v1/tasks/{task_id}/replay")).status_code == 409
    await database.execute(DONE, task_id, "1")
    answer = await api.post(f"/api/v1/tasks/{task_id}/replay")
    assert (answer.status_code, answer.json()["status"], answer.json()["result"]) == (200, "pending", None)


async def test_queues_show_figures_workers_and_slots(api: Api, store: Database, database: OwnDatabase) -> None:
    await workers.register(store, queues=["default", "media"], host="h", concurrency=7, lease_seconds=30)
    await database.execute(
        "UPDATE queues SET due = 3, held = 5, delayed = 2, between_attempts = 1, processing = 4, measured_at = now(), "
        "oldest_due_at = now() - interval '5 s' WHERE name = 'default'"
    )
    (queue,) = (each for each in (await api.get("/api/v1/queues")).json()["queues"] if each["name"] == "default")
    assert queue["backlog"] == {"due": 3, "held": 5, "delayed": 2, "between_attempts": 1}
    assert (queue["processing"], queue["workers"], queue["slots"]) == (4, 1, 7)
    assert 5 <= queue["oldest_due_age_seconds"] < 60
    assert queue["measured_at"] is not None


async def test_a_queue_is_paused_and_limited(api: Api) -> None:
    answer = await api.patch("/api/v1/queues/default", json={"paused": True, "max_backlog": 5})
    assert (answer.status_code, answer.json()["paused"], answer.json()["max_backlog"]) == (200, True, 5)
    again = await api.patch("/api/v1/queues/default", json={"paused": False})
    assert (again.json()["paused"], again.json()["max_backlog"]) == (False, 5)
    assert (await api.get("/api/v1/queues/default")).json() == again.json()


@pytest.mark.parametrize(
    "body", [{}, {"paused": None}, {"paused": 1}, {"max_backlog": -1}, {"max_backlog": 2**63}, {"x": 1}, []]
)
async def test_a_wrong_change_of_a_queue_is_refused(api: Api, body: Any) -> None:
    assert (await api.patch("/api/v1/queues/default", json=body)).status_code == 422


async def test_half_of_a_surrogate_pair_in_a_change_is_called_what_it_is(api: Api) -> None:
    json_type = {"content-type": "application/json"}
    answer = await api.patch("/api/v1/queues/default", content=rb'{"paused":"\ud800"}', headers=json_type)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("The body has a lone surrogate at byte 11")


@pytest.mark.parametrize("name", ["unheard", "%00", "UP", "a" * 300])
async def test_an_unknown_queue_is_not_found(api: Api, name: str) -> None:
    for answer in (
        await api.get(f"/api/v1/queues/{name}"),
        await api.patch(f"/api/v1/queues/{name}", json={"paused": True}),
    ):
        assert (answer.status_code, answer.json()["detail"]) == (404, "Queue not found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PUT", "/tasks", "POST"), ("DELETE", "/api/v1/tasks", "GET, HEAD, POST"), ("POST", "/livez", "GET, HEAD"),
     ("TRACE", "/api/v1/tasks/1", "GET, HEAD"), ("GET", "/api/v1/tasks/1/cancel", "POST")],
)  # fmt: skip
async def test_another_method_is_answered_with_those_allowed(api: Api, method: str, path: str, allowed: str) -> None:
    answer = await api.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/nope", "/tasks/", "/api/v1/tasks/1/nope", "/api", "//tasks"])
async def test_an_unknown_path_is_a_problem_too(api: Api, path: str) -> None:
    answer = await api.get(str(api.base_url).rstrip("/") + path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(("given", "kept"), [("order-17", True), ("x" * 128, True), ("x" * 129, False), ("a b", False)])
async def test_a_request_id_is_kept_or_made(api: Api, given: str, kept: bool) -> None:
    answer = await api.get("/livez", headers={"x-request-id": given})
    assert (answer.headers["x-request-id"] == given) is kept
    assert answer.headers["x-request-id"]


async def test_probes_health_and_metrics(api: Api) -> None:
    assert (await api.get("/livez")).json() == {"live": True}
    assert (await api.get("/readyz")).json() == {
        "ready": True, "checks": {"access": True, "catalog": True, "running": True},
    }  # fmt: skip
    assert (await api.get("/health")).json() == {"status": "healthy", "checks": {"database": "healthy"}}
    await api.submit()
    text = (await api.get("/metrics")).text
    assert 'bobrai_tasks_submitted_total{queue="default",type="echo"}' in text
    assert 'bobrai_http_requests_total{method="POST",route="/api/v1/tasks",status="201"}' in text


async def test_reads_that_come_together_share_queries(api: Api) -> None:
    ids = [await api.submit(n) for n in range(5)]
    answers = await asyncio.gather(*(api.get(f"/api/v1/tasks/{ids[n % 5]}") for n in range(60)))
    assert [answer.json()["payload"] for answer in answers] == [n % 5 for n in range(60)]


async def test_the_document_lists_types_with_their_schemas_and_limits(api: Api) -> None:
    document = (await api.get("/api/openapi.json")).json()
    shapes = document["components"]["schemas"]
    submission = shapes["TaskSubmission"]
    assert document["openapi"].startswith("3.1")
    assert submission["properties"]["type"]["examples"] == ["demo", "echo", "numbers"]
    assert "enum" not in submission["properties"]["type"]  # workers announce more at any time
    assert submission["properties"]["payload"]["x-payload-of-type"]["numbers"].endswith("/PayloadOf_numbers")
    assert submission["properties"]["payload"]["maxLength"] == 10_000
    assert shapes["PayloadOf_numbers"]["properties"]["n"] == {"type": "integer"}
    assert submission["additionalProperties"] is False


async def test_the_root_leads_to_the_page(api: Api) -> None:
    answer = await api.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "docs")
    assert answer.json() == {"docs": "docs", "openapi": "api/openapi.json"}
    assert (await api.get("/", follow_redirects=True)).url.path == "/docs"


async def test_the_page_shows_everything_and_loads_nothing(api: Api) -> None:
    page = await api.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for text in ("/api/v1/tasks/{task_id}/cancel", "PayloadOf_numbers", "curl -X POST", "Idempotency-Key"):
        assert text in page.text
    for loader in ("<script", "src=", "@import", 'href="http', "url("):
        assert loader not in page.text


async def test_a_waiter_right_after_another_left_is_seen_at_once(api: Api, database: OwnDatabase) -> None:
    """The look for waiters once slept for an hour when the last waiter had left a moment before the next came."""
    for _ in range(3):
        task_id = await api.submit()
        held = asyncio.create_task(api.get(f"/api/v1/tasks/{task_id}?wait=10"))
        await eventually(lambda: waiting(api, 1))
        await database.execute(DONE, task_id, "1")
        started = time.monotonic()
        assert (await held).json()["status"] == "done"
        assert time.monotonic() - started < 2
