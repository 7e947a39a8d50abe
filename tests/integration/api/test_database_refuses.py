"""PostgreSQL answers, but not with what was asked for: only a client's own values are the client's fault."""

import asyncio
from typing import Any

import pytest

from bobrai.store.pool import Database
from bobrai.telemetry.logs import captured as capture_logs
from tests.integration.api.conftest import Api
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually
from tests.support.refusing import allow, ignore, refuse


def said(logs: list[Any], event: str, part: str) -> list[str]:
    """The errors of these lines."""
    return [line.get("error", "") for line in logs if line["event"] == event and line["part"] == part]


@pytest.mark.parametrize("sqlstate", ["42501", "58030", "55000", "XX001", "P0001", "25006", "57014", "40001"])
async def test_a_servers_fault_is_a_503_to_be_tried_again(api: Api, store: Database, sqlstate: str) -> None:
    await refuse(store, sqlstate)
    with capture_logs() as logs:
        for headers in ({}, {"idempotency-key": "k"}, {}):
            answer = await api.post("/api/v1/tasks", json={"payload": 1, "type": "echo"}, headers=headers)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert sqlstate in answer.json()["detail"]
        await allow(store)
        await api.submit()
    errors = said(logs, "database.away", "POST /api/v1/tasks")
    assert len(errors) == 1
    assert sqlstate in errors[0]
    assert said(logs, "database.back", "POST /api/v1/tasks") == [""]


async def test_one_clients_row_that_is_refused_costs_no_other_client_its_answer(api: Api, store: Database) -> None:
    await refuse(store, "P0001", "NEW.payload::text = '13'")
    answers = await asyncio.gather(
        *(api.post("/api/v1/tasks", json={"payload": number, "type": "echo"}) for number in range(30))
    )
    assert [answer.status_code for answer in answers] == [503 if number == 13 else 201 for number in range(30)]


async def test_a_task_that_a_trigger_silently_keeps_away_is_not_accepted(api: Api, store: Database) -> None:
    await ignore(store, "NEW.payload::text = '13'")
    answers = await asyncio.gather(
        *(
            api.post("/api/v1/tasks", json={"payload": number, "type": "echo"}, headers=headers)
            for number in range(10, 20)
            for headers in ({}, {"idempotency-key": f"key-{number}"})
        )
    )
    assert [answer.status_code for answer in answers] == [201] * 6 + [503] * 2 + [201] * 12
    for answer in answers:
        if answer.status_code == 201:
            assert (await api.get(answer.headers["location"])).status_code == 200
    await allow(store)
    again = {"idempotency-key": "key-13"}
    assert (await api.post("/api/v1/tasks", json={"payload": 13, "type": "echo"}, headers=again)).status_code == 201


async def test_a_defect_of_ours_is_never_a_clients_error(api: Api, store: Database) -> None:
    task_id = await api.submit()
    await refuse(store, "23514", "NEW.status = 'cancelled'")
    answer = await api.post(f"/api/v1/tasks/{task_id}/cancel")
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:bobrai:problem:internal")
    assert (await api.get(f"/api/v1/tasks/{task_id}")).json()["status"] == "pending"


async def test_values_that_the_database_refuses_are_the_clients_fault(api: Api, store: Database) -> None:
    await refuse(store, "23514")
    answer = await api.post("/api/v1/tasks", json={"payload": 1, "type": "echo"})
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "the body: the database cannot store these values",
    )


async def test_an_id_that_is_taken_is_not_the_clients_fault(api: Api, store: Database, database: OwnDatabase) -> None:
    """After a restore a sequence may be behind its table."""
    taken = await api.submit()
    await database.execute("SELECT setval('tasks_id_seq', $1, false)", taken)
    answer = await api.post("/api/v1/tasks", json={"payload": 1, "type": "echo"})
    assert (answer.status_code, "23505" in answer.json()["detail"]) == (503, True)
    assert await api.submit() == taken + 1


async def test_a_schema_that_is_missing_is_named_with_the_command_that_brings_it(
    api: Api, store: Database, database: OwnDatabase
) -> None:
    with capture_logs() as logs:
        await store.fetch("ALTER TABLE tasks RENAME TO elsewhere")
        answer = await api.post("/api/v1/tasks", json={"payload": 1, "type": "echo"})
        assert answer.status_code == 503
        assert "bobrai migrate" in answer.json()["detail"]
        await database.execute("ALTER TABLE task_types RENAME TO elsewhere_too")
        await eventually(lambda: any(line.get("loop") == "catalog" for line in logs))
    assert "bobrai migrate" in next(line["error"] for line in logs if line.get("loop") == "catalog")
