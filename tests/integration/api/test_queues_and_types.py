"""Queues are made, changed and removed over HTTP, types are listed, and a submit says what nobody can run."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from bobrai.api import queue_routes
from bobrai.domain import limits
from bobrai.domain.retry import Retry
from bobrai.domain.task import TaskType
from bobrai.store import queues, task_types, workers
from bobrai.store.pool import Database
from bobrai.store.purging import Purge
from tests.integration.api.conftest import Api, serving
from tests.integration.store.builders import claimed, submitted, worker
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

QUEUES = "/api/v1/queues"


async def has_types(store: Database, *types: str, consumes: str = "default") -> int:
    """A living worker with these types."""
    return await workers.register(
        store, queues=[consumes], host="h", concurrency=1, lease_seconds=60.0, types=list(types)
    )


async def test_a_queue_is_made_before_its_first_task_and_then_changed(api: Api) -> None:
    made = await api.put(f"{QUEUES}/media", json={"paused": True, "max_backlog": 5})
    assert (made.status_code, made.headers["location"]) == (201, f"{QUEUES}/media")
    assert (made.json()["paused"], made.json()["max_backlog"]) == (True, 5)
    again = await api.put(f"{QUEUES}/media", json={"paused": False})
    assert (again.status_code, again.json()["paused"], again.json()["max_backlog"]) == (200, False, 5)
    assert (await api.get(f"{QUEUES}/media")).json() == again.json()


@pytest.mark.parametrize("body", [{}, {"json": {}}, {"content": b""}])
async def test_no_body_is_a_wish_for_nothing_special(api: Api, body: dict[str, Any]) -> None:
    answer = await api.put(f"{QUEUES}/media", **body)
    assert (answer.status_code, answer.json()["paused"], answer.json()["max_backlog"]) == (201, False, None)


@pytest.mark.parametrize(
    ("name", "body", "pointer"),
    [("UP", {}, "/path/name"), ("%00", {}, "/path/name"), ("a" * 64, {}, "/path/name"), ("_x", {}, "/path/name"),
     ("x", {"paused": 1}, "/paused"), ("x", {"more": 1}, "/more"), ("x", [], "")],
)  # fmt: skip
async def test_a_wrong_wish_is_refused_with_its_place(api: Api, name: str, body: Any, pointer: str) -> None:
    answer = await api.put(f"{QUEUES}/{name}", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    if pointer == "/path/name":
        assert limits.QUEUE_PATTERN in answer.json()["detail"]


async def test_a_body_needs_its_content_type(api: Api) -> None:
    assert (await api.put(f"{QUEUES}/media", content=b"{}")).status_code == 415


async def test_beyond_the_limit_the_answer_says_what_to_do(api: Api, store: Database) -> None:
    await queues.ensure(store, [f"q{number}" for number in range(limits.MAX_QUEUES - 1)])
    put = await api.put(f"{QUEUES}/more")
    submit = await api.post("/api/v1/tasks", json={"type": "echo", "payload": 1, "queue": "more"})
    for answer, pointer in ((put, "/path/name"), (submit, "/queue")):
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
        assert "DELETE /api/v1/queues/{name}" in answer.json()["detail"]
    assert (await api.delete(f"{QUEUES}/q7")).status_code == 204
    await api.submit(queue="more")


async def test_an_empty_queue_is_removed_and_no_other_sees_it(api: Api) -> None:
    await api.put(f"{QUEUES}/media")
    answer = await api.delete(f"{QUEUES}/media")
    assert (answer.status_code, answer.content) == (204, b"")
    assert not {"content-length", "content-type"} & answer.headers.keys()
    assert (await api.get(f"{QUEUES}/media")).status_code == 404
    assert (await api.delete(f"{QUEUES}/media")).status_code == 404
    assert [each["name"] for each in (await api.get(QUEUES)).json()["queues"]] == ["default"]
    assert (await api.put(f"{QUEUES}/media")).status_code == 201


@pytest.mark.parametrize("name", ["unheard", "%00", "UP"])
async def test_a_queue_that_is_not_there_cannot_be_removed(api: Api, name: str) -> None:
    answer = await api.delete(f"{QUEUES}/{name}")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:bobrai:problem:queue-not-found")


async def refusal(api: Api, path: str) -> str:
    """Why a queue cannot be removed."""
    answer = await api.delete(f"{QUEUES}/{path}")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:bobrai:problem:queue-in-use")
    detail: str = answer.json()["detail"]
    return detail


async def test_a_queue_in_use_is_not_removed(api: Api, store: Database) -> None:
    task_id = await api.submit(queue="waits")
    assert "?purge=true" in await refusal(api, "waits")
    await worker(store, queues=("consumed",))
    await queues.ensure(store, ["consumed"])
    assert "1 living workers consume 'consumed'" in await refusal(api, "consumed")
    for path in ("default", "default?purge=true"):
        assert "cannot be removed" in await refusal(api, path)
    assert (await api.get(f"/api/v1/tasks/{task_id}")).json()["status"] == "pending"
    assert (await api.delete(f"{QUEUES}/waits?purge=yes")).status_code == 422


async def test_a_purge_cancels_what_waits_and_stops_what_runs(api: Api, store: Database) -> None:
    me = await worker(store)
    running, *waiting = [await api.submit(queue="media") for _ in range(4)]
    await claimed(store, me, running)
    assert "Tasks wait or run" in await refusal(api, "media")
    detail = await refusal(api, "media?purge=true")
    assert "3 waiting tasks were cancelled. 1 tasks still run" in detail
    assert "repeat the request" in detail
    assert await workers.heartbeat(store, me, lease_seconds=60.0, running=1) == [running]
    await store.fetch("UPDATE tasks SET status = 'cancelled', finished_at = now() WHERE id = $1", running)
    assert (await api.delete(f"{QUEUES}/media?purge=true")).status_code == 204
    for task_id in (running, *waiting):
        assert (await api.get(f"/api/v1/tasks/{task_id}")).json()["status"] == "cancelled"


async def test_a_purge_of_very_many_goes_on_when_it_is_asked_again(
    api: Api, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_routes, "_PURGE_BATCH", 2)
    await submitted(store, 5, queue="media")
    original = Purge.cancel_waiting
    monkeypatch.setattr(queue_routes, "_PURGE_SECONDS", 0.2)

    async def slow(*arguments: Any, **named: Any) -> Any:
        await asyncio.sleep(0.3)
        return await original(*arguments, **named)

    monkeypatch.setattr(Purge, "cancel_waiting", slow)
    for _ in range(2):
        assert "2 waiting tasks were cancelled. More tasks wait" in await refusal(api, "media?purge=true")
    assert (await api.delete(f"{QUEUES}/media?purge=true")).status_code == 204


async def test_a_removed_queue_leaves_no_series(api: Api) -> None:
    async def shown() -> bool:
        return 'queue="media"' in (await api.get("/metrics")).text

    await api.submit(queue="media")
    assert await shown()
    assert (await api.delete(f"{QUEUES}/media?purge=true")).status_code == 204
    assert not await shown()
    await api.submit(queue="media")
    assert await shown(), "and it counts anew"


async def test_a_process_that_does_not_know_of_the_removal_loses_no_task(
    api: Api, store: Database, database: OwnDatabase, free_port: Callable[[], int]
) -> None:
    """The row that it stores is what brings the queue back."""
    port = free_port()
    async with (
        serving(database.url, port, refresh_seconds=3600.0),
        Api(base_url=f"http://127.0.0.1:{port}", timeout=20) as late,
    ):
        await eventually(lambda: _is_ready(late))
        await late.put(f"{QUEUES}/media")
        assert (await api.delete(f"{QUEUES}/media")).status_code == 204
        task_id = await late.submit(queue="media")
    assert (await api.get(f"{QUEUES}/media")).status_code == 404
    assert await queues.restore(store) == ["media"]
    assert (await api.get(f"{QUEUES}/media")).status_code == 200
    me = await worker(store, queues=("media",))
    assert (await claimed(store, me, task_id)).task_id == task_id


async def _is_ready(client: Api) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def test_making_queues_by_submitting_can_be_switched_off(
    database: OwnDatabase, store: Database, free_port: Callable[[], int]
) -> None:
    port = free_port()
    async with (
        serving(database.url, port, make_queues=False),
        Api(base_url=f"http://127.0.0.1:{port}", timeout=20) as api,
    ):
        await eventually(lambda: _is_ready(api))
        refused = await api.post("/api/v1/tasks", json={"type": "echo", "payload": 1, "queue": "typo"})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/queue")
        assert "PUT /api/v1/queues/typo" in refused.json()["detail"]
        batch = [{"type": "echo", "payload": 1}, {"type": "echo", "payload": 1, "queue": "typo"}]
        refused = await api.post("/api/v1/tasks/batch", json={"tasks": batch})
        assert [each["pointer"] for each in refused.json()["errors"]] == ["/tasks/1/queue"]
        await api.submit({"n": 1}, type="numbers")  # its queue is known by its announcement
        await api.put(f"{QUEUES}/typo")
        await api.submit(queue="typo")


async def test_types_are_listed_with_who_has_them(api: Api, store: Database) -> None:
    await has_types(store, "numbers")
    await has_types(store, "numbers", "echo", consumes="media")
    await worker(store)  # of a release that does not say
    listed = {each["name"]: each for each in (await api.get("/api/v1/types")).json()["types"]}
    assert sorted(listed) == ["demo", "echo", "numbers"]
    numbers = listed["numbers"]
    assert numbers == (await api.get("/api/v1/types/numbers")).json()
    assert (numbers["workers"], numbers["workers_unknown"], numbers["queue_workers"]) == (2, 1, 1)
    assert (listed["demo"]["workers"], listed["demo"]["workers_unknown"]) == (0, 1)
    assert (numbers["queue"], numbers["timeout_seconds"], numbers["retry"]["max_attempts"]) == ("media", 7.0, 3)
    assert numbers["retry"]["retry_for_seconds"] is None
    assert numbers["payload_schema"]["required"] == ["n"]
    assert numbers["announced_at"]


async def test_a_types_times_are_shown_and_hold_for_its_tasks(api: Api, store: Database) -> None:
    await task_types.announce(
        store, [TaskType(name="patient", retry=Retry(retry_for_seconds=60), deadline_seconds=600.0)]
    )

    async def shown() -> bool:
        answer = await api.get("/api/v1/types/patient")
        if answer.status_code == 404:
            return False
        type_ = answer.json()
        retry = type_["retry"]
        return (retry["retry_for_seconds"], retry["max_attempts"], type_["deadline_seconds"]) == (60.0, 100, 600.0)

    await eventually(shown, message="the type is known with its times")
    task_id = await api.submit(type="patient")
    (row,) = await store.fetch(
        "SELECT extract(epoch FROM deadline_at - created_at)::float8 AS seconds FROM tasks WHERE id = $1", task_id
    )
    assert row["seconds"] == 600.0


@pytest.mark.parametrize("name", ["unheard", "%00", "a b"])
async def test_an_unknown_type_is_not_found(api: Api, name: str) -> None:
    answer = await api.get(f"/api/v1/types/{name}")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:bobrai:problem:type-not-found")


async def warned(api: Api, expected: list[str], **fields: Any) -> bool:
    """Whether the answer to a submit has these warnings, and none at all when there are none."""
    answer = (await api.post("/api/v1/tasks", json={"type": "echo", "payload": "x", **fields})).json()
    return answer.get("warnings", []) == expected and ("warnings" in answer) is bool(expected)


async def test_a_submit_says_what_no_living_worker_can_run(api: Api, store: Database) -> None:
    assert await warned(api, ["no live worker has the type 'echo'"])
    await has_types(store, "echo")
    await eventually(lambda: warned(api, []), message="there is a worker")
    nobody = "no live worker that has the type 'echo' consumes the queue 'other'"
    assert await warned(api, [nobody], queue="other")
    batch = [{"type": "echo", "payload": 1, "queue": "other"}] * 3 + [{"type": "demo", "payload": "x"}] * 2
    answer = (await api.post("/api/v1/tasks/batch", json={"tasks": batch})).json()
    assert answer["warnings"] == [nobody, "no live worker has the type 'demo'"]
    batch = [{"type": "echo", "payload": 1, "queue": f"q{number}"} for number in range(limits.MAX_WARNINGS + 5)]
    answer = (await api.post("/api/v1/tasks/batch", json={"tasks": batch})).json()
    assert len(answer["warnings"]) == limits.MAX_WARNINGS
    await worker(store, queues=("other",))
    await eventually(lambda: warned(api, [], queue="other"), message="one that does not say may have it")
