"""`bobrai_submit` accepts what HTTP accepts, refuses what it refuses, and stores the same rows."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from bobrai.domain import limits
from bobrai.domain.retry import Retry
from bobrai.domain.task import TaskType
from bobrai.store import task_types
from bobrai.store.pool import Database
from tests.integration.api.conftest import Api
from tests.support.databases import Database as OwnDatabase

THEN = datetime(2098, 1, 1, tzinfo=UTC)
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"

# What a client says over HTTP, and in SQL.
SAME: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"type": "numbers", "payload": {"n": 1}}, ""),
    ({"type": "patient", "payload": 1}, ""),
    ({"type": "patient", "payload": 1, "max_attempts": 9}, "max_attempts => 9"),
    ({"type": "patient", "payload": 1, "retry": {"jitter": 0.5}}, """retry => '{"jitter": 0.5}'"""),
    ({"type": "patient", "payload": 1, "retry": {}}, "retry => '{}'"),
    ({"retry": {"retry_for_seconds": 60}}, """retry => '{"retry_for_seconds": 60}'"""),
    (
        {"retry": {"retry_for_seconds": 60, "factor": 3}, "max_attempts": 5},
        """retry => '{"retry_for_seconds": 60, "factor": 3}', max_attempts => 5""",
    ),
    ({"queue": "media", "priority": 7}, "queue => 'media', priority => 7"),
    ({"delay_seconds": 90.5}, "delay => '90.5 s'"),
    ({"run_at": "2020-01-01T00:00:00Z"}, "run_at => '2020-01-01 00:00+00'"),
    ({"timeout_seconds": 0.001}, "timeout => '1 ms'"),
    ({"type": "patient", "payload": 1, "deadline_seconds": 5}, "deadline => '5 s'"),
    ({"type": "patient", "payload": 1, "deadline_at": THEN.isoformat()}, f"deadline_at => '{THEN}'"),
    ({"expires_seconds": 61, "delay_seconds": 60}, "expires => '61 s', delay => '1 min'"),
    ({"expires_at": THEN.isoformat()}, f"expires_at => '{THEN}'"),
]

# Texts of payloads, each accepted by both or by neither.
PAYLOADS = [
    '{"b": 1,  "a":[1e2], "b": "\\u00fc ü"}',
    "null",
    '""',
    json.dumps("ü" * limits.MAX_PAYLOAD_STRING, ensure_ascii=False),
    json.dumps("😀" * limits.MAX_PAYLOAD_STRING),
    json.dumps("\\" * limits.MAX_PAYLOAD_STRING),
    json.dumps("\x00" * limits.MAX_PAYLOAD_STRING),
    json.dumps("x" * (limits.MAX_PAYLOAD_STRING + 1)),
    "[" * limits.MAX_JSON_DEPTH + "]" * limits.MAX_JSON_DEPTH,
    "[" * (limits.MAX_JSON_DEPTH + 1) + "]" * (limits.MAX_JSON_DEPTH + 1),
    '{"a":' * limits.MAX_JSON_DEPTH + "[]" + "}" * limits.MAX_JSON_DEPTH,
    "[" + ",".join(["[[]]"] * limits.MAX_JSON_DEPTH) + "]",
    json.dumps(['\\"' + "[" * 300, "{" * 300]),
    '"\\ud800"',
    '["\\uDFFF"]',
    '"\\ud83d\\ude00"',
    '"\\ud83d\\\\\\ude00"',
    '"\\\\ud800"',
    '["\\ud83dx\\ude00"]',
    "1e308",
    "[1e309]",
    "[-1E+309]",
    "1e-400",
    '["1e400"]',
    f"[{'9' * 308}.5]",
    f"[{'9' * 310}.5]",
    f"[0.{'0' * 400}1]",
    f"[{'9' * 4300}]",
    f"[-{'9' * 4299}]",
    f"[-{'9' * 4300}]",
    f"[{'9' * 4301}]",
    "{",
    '"\x01"',
    "[01]",
    "NaN",
]


@pytest.fixture
async def patient_type(store: Database) -> None:
    """One more type: with a policy, a queue and a deadline of its own."""
    retry = Retry(
        max_attempts=7, delay_seconds=0.25, factor=1.5, max_delay_seconds=100, jitter=0.0, retry_for_seconds=9
    )
    patient = TaskType(name="patient", queue="waiting", retry=retry, timeout_seconds=44.5, deadline_seconds=3600)
    await task_types.announce(store, [patient])


@pytest.mark.usefixtures("patient_type")
async def test_the_row_is_the_one_that_http_makes(api: Api, database: OwnDatabase) -> None:
    headers = {"x-request-id": "order-17", "traceparent": TRACE, "tracestate": "a=b"}
    more = f"request_id => 'order-17', traceparent => '{TRACE}', tracestate => 'a=b'"
    async with database.connect() as connection:
        for members, arguments in SAME:
            wish = {"type": "echo", "payload": "x", **members}
            over_http = (await api.post("/api/v1/tasks", json=wish, headers=headers)).json()["task_id"]
            call = f"SELECT bobrai_submit($1, $2, {', '.join(filter(None, [arguments, more]))})"
            in_sql = await connection.fetchval(call, wish["type"], json.dumps(wish["payload"], separators=(",", ":")))
            first, second = [await _row(connection, task_id) for task_id in (over_http, in_sql)]
            assert second == first, arguments
            clients = await connection.fetch("SELECT client_id FROM tasks WHERE id = $1", in_sql)
            assert clients[0]["client_id"] == "sql:postgres"


async def _row(connection: asyncpg.Connection, task_id: int) -> dict[str, Any]:
    """A task with its hint; moments that count from its acceptance as the time from there."""
    (row,) = await connection.fetch(
        "SELECT t.*, o.attempt AS hinted, o.queue AS hinted_queue, o.priority AS hinted_priority, o.due_at = run_at AS"
        " hinted_when FROM tasks AS t JOIN outbox AS o ON o.task_id = t.id WHERE t.id = $1",
        task_id,
    )
    fields = {name: value for name, value in row.items() if name not in {"id", "client_id"}}
    created_at = fields.pop("created_at")
    fields["retry"] = json.loads(fields["retry"])
    for name, value in fields.items():
        if isinstance(value, datetime) and abs(value - created_at) < timedelta(days=1):
            fields[name] = round((value - created_at).total_seconds(), 3)
    return fields


async def test_the_same_payloads_are_refused_as_over_http(api: Api, database: OwnDatabase) -> None:
    verdicts = []
    async with database.connect() as connection:
        for text in PAYLOADS:
            body = b'{"type": "echo", "payload": ' + text.encode() + b"}"
            answer = await api.post("/api/v1/tasks", content=body, headers={"content-type": "application/json"})
            try:
                task_id = await connection.fetchval("SELECT bobrai_submit('echo', $1)", text)
            except (asyncpg.InvalidParameterValueError, asyncpg.InvalidTextRepresentationError):
                assert answer.status_code in {400, 422}, f"only in SQL: {text[:50]}"
            else:
                assert answer.status_code == 201, f"only over HTTP: {text[:50]} {answer.text}"
                assert await connection.fetchval("SELECT payload FROM tasks WHERE id = $1", task_id) == text
            verdicts.append(answer.status_code)
    assert {201, 400, 422} == set(verdicts)


async def test_the_task_is_read_over_http(api: Api, database: OwnDatabase) -> None:
    task_id = await database.fetchval("SELECT bobrai_submit('echo', '{\"a\": 1}', delay => '1 h')")
    shown = (await api.get(f"/api/v1/tasks/{task_id}")).json()
    assert (shown["status"], shown["payload"], shown["attempt"]) == ("pending", {"a": 1}, 0)
