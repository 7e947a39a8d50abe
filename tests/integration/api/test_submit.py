"""Submitting over HTTP: what is stored, and what is refused with its place."""

import asyncio
import json
from typing import Any

import pytest

from bobrai.domain import limits
from bobrai.store.pool import Database
from tests.integration.api.conftest import Api
from tests.support.databases import Database as OwnDatabase

JSON = {"content-type": "application/json"}


async def test_an_accepted_task_is_a_row_and_an_outbox_row(api: Api, database: OwnDatabase) -> None:
    answer = await api.post(
        "/api/v1/tasks",
        content=b'{"payload": {"b": 1,  "a":[1e2]}, "type":"echo","priority":7,"queue":"media","max_attempts":9,'
        b'"timeout_seconds":1.5,"delay_seconds":60,"retry":{"factor":3}}',
        headers={**JSON, "x-request-id": "order-17", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"},
    )
    task_id = answer.json()["task_id"]
    assert (answer.status_code, answer.headers["location"]) == (201, f"/api/v1/tasks/{task_id}")
    (row,) = await database.fetch("SELECT *, run_at - created_at AS delay FROM tasks")
    (due,) = await database.fetch("SELECT * FROM outbox")
    assert row["payload"] == '{"b": 1,  "a":[1e2]}'
    assert (row["type"], row["queue"], row["priority"], row["max_attempts"]) == ("echo", "media", 7, 9)
    assert (row["timeout_seconds"], row["delay"].total_seconds()) == (1.5, 60)
    assert json.loads(row["retry"])["factor"] == 3
    assert (row["request_id"], row["trace_context"]) == ("order-17", f"00-{'a' * 32}-{'b' * 16}-01")
    assert (due["task_id"], due["priority"], due["due_at"]) == (task_id, 7, row["run_at"])


@pytest.mark.parametrize(
    ("members", "attempts"),
    [({}, 100), ({"max_attempts": 5}, 5)],
    ids=["time alone", "time and number"],
)
async def test_a_time_for_attempts_takes_the_place_of_the_types_number(
    api: Api, database: OwnDatabase, members: dict[str, int], attempts: int
) -> None:
    await api.submit({"n": 1}, type="numbers", retry={"retry_for_seconds": 3600}, **members)
    await api.submit({"n": 1}, type="numbers", retry={"factor": 3})
    timed, plain = await database.fetch("SELECT max_attempts, retry FROM tasks ORDER BY id")
    policy = json.loads(timed["retry"])
    assert (timed["max_attempts"], policy["max_attempts"], policy["retry_for_seconds"]) == (attempts, attempts, 3600)
    assert (plain["max_attempts"], "retry_for_seconds" in plain["retry"]) == (3, False)


async def test_a_deadline_counts_from_the_acceptance_whenever_the_task_is_due(api: Api, database: OwnDatabase) -> None:
    await api.submit(deadline_seconds=600, delay_seconds=300)
    await api.submit(deadline_at="2098-01-01T00:00:00Z", run_at="2097-01-01T00:00:00Z")
    await api.submit()
    first, second, third = await database.fetch(
        "SELECT deadline_at, extract(epoch FROM deadline_at - created_at)::float8 AS seconds FROM tasks ORDER BY id"
    )
    assert (first["seconds"], second["deadline_at"].year, third["deadline_at"]) == (600.0, 2098, None)
    shown = (await api.get("/api/v1/tasks/2")).json()
    assert shown["deadline_at"].startswith("2098-01-01T00:00:00")


async def test_an_expiry_counts_from_the_acceptance(api: Api, database: OwnDatabase) -> None:
    await api.submit(expires_seconds=600, delay_seconds=60)
    batch = {"tasks": [{"payload": "x", "expires_at": "2098-01-01T00:00:00Z"}, {"payload": "x"}]}
    assert (await api.post("/api/v1/tasks/batch", json=batch)).status_code == 201
    keyed = await api.post(
        "/api/v1/tasks", json={"payload": "x", "expires_seconds": 5}, headers={"idempotency-key": "k"}
    )
    assert keyed.status_code == 201
    rows = await database.fetch(
        "SELECT expires_at, extract(epoch FROM expires_at - created_at)::float8 AS seconds FROM tasks ORDER BY id"
    )
    assert (rows[0]["seconds"], rows[1]["expires_at"].year, rows[2]["expires_at"]) == (600.0, 2098, None)
    assert rows[3]["seconds"] == 5.0
    shown = (await api.get("/api/v1/tasks/2")).json()
    assert shown["expires_at"].startswith("2098-01-01T00:00:00")


async def test_a_task_that_would_expire_before_it_is_due_is_refused_with_its_place(api: Api) -> None:
    tasks = [
        {"payload": "x", "expires_seconds": 60, "delay_seconds": 60.5},
        {"payload": "x", "expires_at": "2030-01-01T00:00:00Z", "run_at": "2030-01-01T00:00:01Z"},
    ]
    answer = await api.post("/api/v1/tasks/batch", json={"tasks": tasks})
    assert answer.status_code == 422
    assert [(fault["pointer"], fault["detail"]) for fault in answer.json()["errors"]] == [
        ("/tasks/0/expires_seconds", "must be more than delay_seconds"),
        ("/tasks/1/expires_at", "must be later than run_at"),
    ]


async def test_what_is_left_out_comes_from_the_type(api: Api, database: OwnDatabase) -> None:
    await api.submit({"n": 1}, type="numbers")
    (row,) = await database.fetch("SELECT queue, timeout_seconds, max_attempts FROM tasks")
    assert row == {"queue": "media", "timeout_seconds": 7.0, "max_attempts": 3}


async def test_the_first_versions_path_behaves_as_the_twin(api: Api) -> None:
    answer = await api.post("/tasks", json={"payload": "test task"})
    task_id = answer.json()["task_id"]
    assert (answer.status_code, answer.json()) == (201, {"task_id": task_id})
    first, twin = await api.get(f"/tasks/{task_id}"), await api.get(f"/api/v1/tasks/{task_id}")
    assert first.json() == twin.json()
    assert first.json()["type"] == "demo"
    assert answer.headers["location"] == f"/tasks/{task_id}"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"payload": 1, "type": "unheard"}, "/type"),
        ({"payload": {"n": "x"}, "type": "numbers"}, "/payload/n"),
        ({"payload": {"n": 1, "m": 2}, "type": "numbers"}, "/payload/m"),
        ({"payload": {}, "type": "numbers"}, "/payload/n"),
        ({"payload": 1, "queue": "a\x00b"}, "/queue"),
        ({"payload": 1, "type": "a\x00b"}, "/type"),
        ({"payload": 1, "surprise": 2}, "/surprise"),
        ({}, "/payload"),
    ],
)
async def test_a_wrong_task_is_refused_with_its_place(
    api: Api, database: OwnDatabase, body: dict[str, Any], pointer: str
) -> None:
    answer = await api.post("/api/v1/tasks", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert [fault["pointer"] for fault in problem["errors"]] == [pointer]
    assert (problem["status"], problem["request_id"]) == (422, answer.headers["x-request-id"])
    assert problem["title"]
    assert problem["detail"]
    assert await database.fetchval("SELECT count(*) FROM tasks") == 0


async def test_a_batch_is_stored_in_order_and_all_or_none(api: Api, database: OwnDatabase) -> None:
    items = [{"payload": n, "type": "echo"} for n in range(1000)]
    answer = await api.post("/api/v1/tasks/batch", json={"tasks": items})
    ids = answer.json()["task_ids"]
    assert answer.status_code == 201
    rows = await database.fetch("SELECT id, payload FROM tasks")
    assert {row["id"]: int(row["payload"]) for row in rows} == dict(zip(ids, range(1000), strict=True))

    items[3] = {"payload": {"n": "x"}, "type": "numbers"}
    items[5] = {"payload": 1, "type": "unheard"}
    refused = await api.post("/api/v1/tasks/batch", json={"tasks": items})
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/tasks/3/payload/n", "/tasks/5/type"]
    assert await database.fetchval("SELECT count(*) FROM tasks") == 1000


@pytest.mark.parametrize(
    "payload",
    ['"\\u0000"', '{"\\u0000":1}', '{"a":1,"a":2}', "1e308", "-0", '"\\ud83d\\ude00"', "123456789012345678901234567890",
     "[" * limits.MAX_JSON_DEPTH + "]" * limits.MAX_JSON_DEPTH, '"\x7f"', "5e-324", '"\\/\\b\\f"'],
)  # fmt: skip
async def test_postgresql_stores_and_returns_every_payload_that_was_accepted(api: Api, payload: str) -> None:
    """What the checks let through must not fail the statement that its neighbours share."""
    alone = api.post("/api/v1/tasks", content=b'{"payload":%s,"type":"echo"}' % payload.encode(), headers=JSON)
    answers = await asyncio.gather(alone, *(api.submit(n) for n in range(20)))
    task_id = answers[0].json()["task_id"]
    assert f'"payload":{payload},' in (await api.get(f"/api/v1/tasks/{task_id}")).text


async def test_an_unknown_queue_is_made_up_to_a_limit(api: Api, database: OwnDatabase) -> None:
    await api.submit(queue="brand-new")
    assert await database.fetchval("SELECT count(*) FROM queues WHERE name = 'brand-new'") == 1
    missing = limits.MAX_QUEUES - await database.fetchval("SELECT count(*) FROM queues")
    await database.execute("INSERT INTO queues (name) SELECT 'q' || n FROM generate_series(1, $1) AS n", missing)
    refused = await api.post("/api/v1/tasks", json={"payload": 1, "type": "echo", "queue": "one-too-many"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/queue")
    await api.submit(queue=f"q{missing}")


async def test_a_type_that_was_announced_a_moment_ago_is_known(api: Api, store: Database) -> None:
    for number in range(10):
        name = f"late-{number}"
        before = await api.post("/api/v1/tasks", json={"payload": 1, "type": name})  # the API has just looked
        assert before.status_code == 422
        await store.fetch(
            "INSERT INTO task_types (name, queue, retry, timeout_seconds) VALUES ($1, 'default', '{}', 1)", name
        )
        assert (await api.post("/api/v1/tasks", json={"payload": 1, "type": name})).status_code == 201


async def test_all_that_is_wrong_with_a_batch_is_said_at_once(api: Api) -> None:
    tasks = [
        {"payload": 1, "type": "unheard"},
        {"payload": 1, "type": "echo", "priority": 99},
        {"payload": {}, "type": "numbers"},
        7,
        {"payload": {"n": 1, "m": 2}, "type": "numbers"},
        {"type": "echo"},
    ]
    answer = await api.post("/api/v1/tasks/batch", json={"tasks": tasks, "more": 1})
    assert [(fault["pointer"], fault["detail"]) for fault in answer.json()["errors"]] == [
        ("/more", "is not a known field"),
        ("/tasks/0/type", "'unheard' is not a known task type"),
        ("/tasks/1/priority", "must be less than or equal to 10"),
        ("/tasks/2/payload/n", "is required"),
        ("/tasks/3", "must be an object"),
        ("/tasks/4/payload/m", "is not a known field"),
        ("/tasks/5/payload", "is required"),
    ]


@pytest.mark.parametrize("path", ["/livez", "/api/v1/queues", "/nowhere"])
async def test_a_body_that_nobody_wants_is_read_and_forgotten(api: Api, path: str) -> None:
    for size in (1, 100_000):
        answer = await api.request("GET", path, content=b"x" * size)
        assert answer.status_code in {200, 404}
    assert (await api.request("GET", "/livez", content=b"x" * 300_000)).status_code == 413


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
async def test_another_content_type_is_refused(api: Api, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = await api.post("/tasks", content=b'{"payload":1}', headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (415, "application/problem+json")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/json; v=1",
        "application/json;charset=utf-8; v=1",
    ],
)
async def test_json_in_utf8_is_accepted_however_it_is_spelled(api: Api, content_type: str) -> None:
    answer = await api.post("/tasks", content=b'{"payload":1}', headers={"content-type": content_type})
    assert answer.status_code == 201


async def test_a_compressed_body_is_refused(api: Api) -> None:
    answer = await api.post("/tasks", content=b"\x1f\x8b", headers={**JSON, "content-encoding": "gzip"})
    assert answer.status_code == 415


def sized(size: int) -> bytes:
    body = b'{"payload":[' + b"1," * ((size - 40) // 2) + b'1],"type":"echo"}'
    return body + b" " * (size - len(body))


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_body_may_have_256_kib_and_not_a_byte_more(api: Api, chunked: bool) -> None:
    async def parts(body: bytes) -> Any:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    for size, status in ((limits.MAX_BODY_BYTES, 201), (limits.MAX_BODY_BYTES + 1, 413), (3_000_000, 413)):
        body = sized(size)
        answer = await api.post("/tasks", content=parts(body) if chunked else body, headers=JSON)
        assert answer.status_code == status, size
    await api.submit()


async def test_a_declared_size_beyond_all_reason_is_refused_unread(api: Api) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.base_url.port)
    writer.write(
        b"POST /tasks HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{"
    )
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    writer.close()


async def test_a_full_queue_answers_429_until_there_is_room(api: Api, database: OwnDatabase) -> None:
    assert (await api.patch("/api/v1/queues/default", json={"max_backlog": 2})).status_code == 200
    await api.submit()
    await api.submit()
    full = await api.post("/api/v1/tasks", json={"payload": 1, "type": "echo"}, headers={"idempotency-key": "k"})
    assert (full.status_code, full.json()["type"]) == (429, "urn:bobrai:problem:queue-full")
    assert int(full.headers["retry-after"]) >= 1
    await api.submit(queue="media")
    assert (await api.patch("/api/v1/queues/default", json={"max_backlog": None})).status_code == 200
    await api.submit()
    assert await database.fetchval("SELECT count(*) FROM tasks WHERE queue = 'default'") == 3


async def test_a_repeated_request_is_answered_even_when_the_queue_is_full_by_now(api: Api) -> None:
    def again() -> Any:
        return api.post("/api/v1/tasks", json={"payload": 1, "type": "echo"}, headers={"idempotency-key": "k"})

    first = await again()
    await api.patch("/api/v1/queues/default", json={"max_backlog": 0})
    second = await again()
    assert (second.status_code, second.json()) == (201, first.json())
    assert second.headers["idempotency-replayed"] == "true"


async def test_the_same_key_and_body_give_the_first_answer_again(api: Api, database: OwnDatabase) -> None:
    async def once(path: str, body: Any, key: str = "k") -> Any:
        return await api.post(path, json=body, headers={"idempotency-key": key})

    single, batch = {"payload": 1, "type": "echo"}, {"tasks": [{"payload": 1}, {"payload": 2}]}
    for path, body in (("/api/v1/tasks", single), ("/api/v1/tasks/batch", batch)):
        key = path.rpartition("/")[2]
        first, second = await once(path, body, key), await once(path, body, f'"{key}"')
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.json() == second.json()
        assert first.headers.get("location") == second.headers.get("location")
        assert ("idempotency-replayed" in first.headers, second.headers["idempotency-replayed"]) == (False, "true")
        other = await once(path, {**body, "payload": 3} if "payload" in body else {"tasks": [{"payload": 3}]}, key)
        assert (other.status_code, other.json()["type"]) == (422, "urn:bobrai:problem:idempotency-mismatch")
    assert (await once("/api/v1/tasks", single, "")).status_code == 400
    assert await database.fetchval("SELECT count(*) FROM tasks") == 3


async def test_an_expired_key_is_free_again(api: Api, database: OwnDatabase) -> None:
    headers = {"idempotency-key": "k"}
    first = await api.post("/tasks", json={"payload": 1}, headers=headers)
    await database.execute("UPDATE idempotency_keys SET expires_at = now()")
    second = await api.post("/tasks", json={"payload": 2}, headers=headers)
    assert second.status_code == 201
    assert second.json() != first.json()
