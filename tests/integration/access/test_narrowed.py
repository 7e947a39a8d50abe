"""What lies outside of a narrowed grant is not there: on every way that leads to it."""

from typing import Any

import pytest

from bobrai.store import queues, workers
from bobrai.store.pool import Database
from tests.integration.access.conftest import WORKING, Keys, bearer
from tests.integration.api.conftest import Api
from tests.support.authors import SOMEBODY

TASKS = "/api/v1/tasks"


async def ids_seen(api: Api, headers: dict[str, str], **query: Any) -> list[int]:
    """The ids of the list, oldest first, over all its pages."""
    found: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get(TASKS, params={"limit": 2, **query, **cursor}, headers=headers)).json()
        found += [task["id"] for task in page["tasks"]]
        if page["next_cursor"] is None:
            return found[::-1]
        cursor = {"cursor": page["next_cursor"]}


@pytest.fixture
async def theirs(api: Api, keys: Keys) -> dict[str, int]:
    """Tasks of somebody else: one that a grant for `mail*` and `echo` reaches, and two that it does not."""
    api.headers.update(bearer((await keys.make()).secret))
    tasks = {
        "inside": await api.submit("theirs", queue="mail.a"),
        "other queue": await api.submit("theirs", queue="mai_"),
        "other type": await api.submit("theirs", queue="mail.a", type="demo"),
    }
    del api.headers["authorization"]
    return tasks


@pytest.mark.parametrize(
    ("narrowed", "inside"),
    [
        pytest.param({"queues": ["mail*"]}, {"inside", "other type"}, id="to queues"),
        pytest.param({"queues": ["mai_"]}, {"other queue"}, id="to a queue whose name has a wildcard of SQL's"),
        pytest.param({"types": ["e*o"]}, {"inside", "other queue"}, id="to types"),
        pytest.param({"queues": ["mail*"], "types": ["echo"]}, {"inside"}, id="to queues and types"),
        pytest.param({"own_tasks": True}, set(), id="to its own tasks"),
    ],
)
async def test_a_task_outside_is_not_found_whatever_is_done_to_it(
    api: Api, keys: Keys, theirs: dict[str, int], narrowed: dict[str, Any], inside: set[str]
) -> None:
    key = await keys.make(*WORKING, **narrowed)
    mine = bearer(key.secret)
    for name, task_id in theirs.items():
        path = f"{TASKS}/{task_id}"
        answers = [
            await api.get(path, headers=mine),
            await api.get(f"/tasks/{task_id}", headers=mine),
            await api.get(path, params={"wait": 0.05}, headers=mine),
            await api.get(path, headers={**mine, "If-None-Match": "*"}),
            await api.post(f"{path}/cancel", headers=mine),
            await api.post(f"{path}/replay", headers=mine),
        ]
        codes = [each.status_code for each in answers]
        if name in inside:
            assert codes == [200, 200, 200, 304, 200, 200], name
        else:
            assert codes == [404] * 6, name
            nothing = await api.get(f"{TASKS}/999999", headers=mine)
            assert {each.json()["detail"] for each in answers} == {nothing.json()["detail"]}
    expected = sorted(task_id for name, task_id in theirs.items() if name in inside)
    assert await ids_seen(api, mine) == expected
    assert await ids_seen(api, mine, type="echo") == [each for each in expected if each != theirs["other type"]]
    assert await ids_seen(api, mine, queue="mai_") == [each for each in expected if each == theirs["other queue"]]


async def test_a_cursor_of_somebody_else_leads_to_nothing_of_theirs(
    api: Api, keys: Keys, theirs: dict[str, int]
) -> None:
    whole, mine = bearer((await keys.make()).secret), bearer((await keys.make(own_tasks=True)).secret)
    page = (await api.get(TASKS, params={"limit": 1}, headers=whole)).json()
    assert (await api.get(TASKS, params={"cursor": page["next_cursor"]}, headers=mine)).json()["tasks"] == []


@pytest.mark.parametrize(
    ("task", "pointer"),
    [
        ({"type": "numbers", "payload": {"n": 1}}, "/type"),
        ({"type": "never-announced", "payload": 1}, "/type"),
        ({"type": "echo", "payload": 1}, "/queue"),  # its type's queue
        ({"type": "echo", "payload": 1, "queue": "no-such-queue"}, "/queue"),
    ],
)
async def test_what_a_task_names_outside_is_refused_alike_be_it_there_or_not(
    api: Api, keys: Keys, store: Database, task: dict[str, Any], pointer: str
) -> None:
    mine = bearer((await keys.make(queues=["mail*"], types=["echo"])).secret)
    good = {"type": "echo", "payload": 1, "queue": "mail.a"}
    alone = await api.post(TASKS, json=task, headers=mine)
    batch = await api.post(f"{TASKS}/batch", json={"tasks": [good, task]}, headers=mine)
    for answer, place in ((alone, pointer), (batch, f"/tasks/1{pointer}")):
        assert answer.status_code == 403
        assert answer.json()["type"] == "urn:bobrai:problem:outside-grant"
        assert [fault["pointer"] for fault in answer.json()["errors"]] == [place]
    assert await store.fetch("SELECT id FROM tasks") == []
    assert "no-such-queue" not in await queues.live(store)
    assert (await api.post(TASKS, json=good, headers=mine)).status_code == 201


async def test_idempotency_keys_belong_to_who_used_them(api: Api, keys: Keys) -> None:
    task = {"type": "echo", "payload": "same"}
    answers = []
    for secret in [(await keys.make()).secret, (await keys.make()).secret]:
        headers = {**bearer(secret), "Idempotency-Key": "once"}
        first = await api.post(TASKS, json=task, headers=headers)
        again = await api.post(TASKS, json=task, headers=headers)
        assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
        answers.append(first.json()["task_id"])
    assert answers[0] != answers[1]


async def test_own_tasks_are_those_of_every_secret_that_a_key_has_had(api: Api, keys: Keys, store: Database) -> None:
    from bobrai.access import issuing

    key = await keys.make(own_tasks=True)
    first = await api.post(TASKS, json={"type": "echo", "payload": 1}, headers=bearer(key.secret))
    rotated = await issuing.rotate(store, key.key_id, grace_seconds=0, by=SOMEBODY)
    assert rotated is not None
    assert await ids_seen(api, bearer(rotated.secret)) == [first.json()["task_id"]]


async def test_queues_outside_are_not_there(api: Api, keys: Keys) -> None:
    whole = bearer((await keys.make()).secret)
    for name in ("mail.a", "other"):
        assert (await api.put(f"/api/v1/queues/{name}", headers=whole)).status_code == 201
    mine = bearer((await keys.make(queues=["mail*"])).secret)
    listed = (await api.get("/api/v1/queues", headers=mine)).json()["queues"]
    assert [queue["name"] for queue in listed] == ["mail.a"]
    for name in ("other", "never-made"):
        path = f"/api/v1/queues/{name}"
        assert (await api.get(path, headers=mine)).status_code == 404
        assert (await api.patch(path, json={"paused": True}, headers=mine)).status_code == 404
        assert (await api.delete(path, headers=mine)).status_code == 404
        assert (await api.put(path, headers=mine)).status_code == 403
    assert (await api.get("/api/v1/queues/never-made", headers=whole)).status_code == 404
    assert (await api.patch("/api/v1/queues/mail.a", json={"paused": True}, headers=mine)).json()["paused"] is True


@pytest.mark.parametrize("narrowed", [{"types": ["echo"]}, {"own_tasks": True}], ids=["to types", "to its own tasks"])
async def test_figures_that_count_tasks_outside_are_kept_back(api: Api, keys: Keys, narrowed: dict[str, Any]) -> None:
    whole, mine = bearer((await keys.make()).secret), bearer((await keys.make(**narrowed)).secret)
    await api.put("/api/v1/queues/mail.a", headers=whole)
    view = (await api.get("/api/v1/queues/mail.a", headers=mine)).json()
    assert (view["backlog"], view["processing"], view["oldest_due_age_seconds"]) == (None, None, None)
    assert (await api.get("/api/v1/queues/mail.a", headers=whole)).json()["backlog"] is not None
    # what is done to a queue is done to all of its tasks
    for changed in (
        await api.delete("/api/v1/queues/mail.a", params={"purge": "true"}, headers=mine),
        await api.patch("/api/v1/queues/mail.a", json={"paused": True}, headers=mine),
        await api.put("/api/v1/queues/mail.a", json={"paused": True}, headers=mine),
    ):
        assert (changed.status_code, changed.json()["type"]) == (403, "urn:bobrai:problem:outside-grant")


async def test_types_outside_are_not_there(api: Api, keys: Keys) -> None:
    mine = bearer((await keys.make(types=["e*"])).secret)
    listed = (await api.get("/api/v1/types", headers=mine)).json()["types"]
    assert [each["name"] for each in listed] == ["echo"]
    assert (await api.get("/api/v1/types/numbers", headers=mine)).status_code == 404
    assert (await api.get("/api/v1/types/echo", headers=mine)).status_code == 200


async def test_a_type_is_limited_by_who_reaches_all_of_its_tasks(api: Api, keys: Keys) -> None:
    wish = {"limits": {"concurrency": 3}}
    path = "/api/v1/types/echo"
    whole = bearer((await keys.make(types=["e*"])).secret)
    assert (await api.patch(path, json=wish, headers=whole)).json()["limits"] == {"concurrency": 3}
    assert (await api.patch("/api/v1/types/numbers", json=wish, headers=whole)).status_code == 404
    narrowed: tuple[dict[str, Any], ...] = ({"queues": ["*"]}, {"own_tasks": True}, {"types": ["e*"], "queues": ["a"]})
    for some in narrowed:
        answer = await api.patch(path, json={"limits": None}, headers=bearer((await keys.make(**some)).secret))
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:bobrai:problem:outside-grant")
        assert answer.json()["errors"][0]["pointer"] == "/path/type"
    reader = bearer((await keys.make("queues:read", "tasks:control")).secret)
    assert (await api.patch(path, json=wish, headers=reader)).json()["scope"] == "queues:control"


async def test_whose_turns_differ_is_told_to_who_reaches_all_of_the_tasks(api: Api, keys: Keys) -> None:
    whole = bearer((await keys.make()).secret)
    told = {"per_key": {"key": "/account", "concurrency": 3, "weights": {"acme": 3}}}
    kept_back = {"per_key": {"key": "/account", "concurrency": 3}}
    queue, type_ = "/api/v1/queues/mail", "/api/v1/types/echo"
    await api.put(queue, json={"limits": told}, headers=whole)
    await api.patch(type_, json={"limits": told}, headers=whole)
    narrowed: tuple[tuple[dict[str, Any], Any, Any], ...] = (
        ({}, told, told),
        ({"queues": ["mail"]}, told, kept_back),
        ({"types": ["echo"]}, kept_back, told),
        ({"own_tasks": True}, kept_back, kept_back),
    )
    for some, of_queue, of_type in narrowed:
        mine = bearer((await keys.make(**some)).secret)
        assert (await api.get(queue, headers=mine)).json()["limits"] == of_queue
        assert (await api.get(type_, headers=mine)).json()["limits"] == of_type


async def test_without_the_scope_for_payloads_what_handlers_got_and_answered_is_absent(
    api: Api, keys: Keys, store: Database
) -> None:
    whole = bearer((await keys.make()).secret)
    mine = bearer((await keys.make("tasks:submit", "tasks:read", "tasks:control")).secret)
    answer = await api.post(TASKS, json={"type": "echo", "payload": "hidden"}, headers=mine)
    task_id = answer.json()["task_id"]
    await store.fetch(
        """UPDATE tasks SET status = 'failed', finished_at = now(), attempt = 1, progress = '"hidden"',
           result = '"hidden"',
           errors = '[{"attempt": 1, "type": "ValueError", "message": "hidden", "traceback": "hidden",
                       "reason": "error", "at": "2030-01-31T12:00:00Z"}]'
           WHERE id = $1""",
        task_id,
    )
    path = f"{TASKS}/{task_id}"
    seen = await api.get(path, headers=whole)
    assert seen.text.count("hidden") == 6
    answers = [
        await api.get(path, headers=mine),
        await api.get(f"/tasks/{task_id}", headers=mine),
        await api.get(TASKS, headers=mine),
        await api.post(f"{path}/replay", headers=mine),
        await api.post(f"{path}/cancel", headers=mine),
    ]
    for each in answers:
        assert each.status_code == 200
        assert "hidden" not in each.text
    view = answers[0].json()
    assert not view.keys() & {"payload", "result", "progress", "error"}
    assert view["errors"] == [{"attempt": 1, "type": "ValueError", "reason": "error", "at": "2030-01-31T12:00:00Z"}]
    assert seen.json().keys() - view.keys() == {"payload", "result", "progress", "error"}


async def test_a_type_whose_queue_is_outside_is_shown_without_it(api: Api, keys: Keys) -> None:
    mine = bearer((await keys.make(queues=["mail*", "media"])).secret)
    listed = {each["name"]: each for each in (await api.get("/api/v1/types", headers=mine)).json()["types"]}
    assert {name: each["queue"] for name, each in listed.items()} == {"demo": None, "echo": None, "numbers": "media"}
    assert {name: each["queue_workers"] for name, each in listed.items()} == {"demo": None, "echo": None, "numbers": 0}
    assert (await api.get("/api/v1/types/echo", headers=mine)).json()["queue"] is None
    refused = await api.post(TASKS, json={"type": "echo", "payload": 1}, headers=mine)
    assert "default" not in refused.text
    assert refused.json()["errors"][0]["pointer"] == "/queue"


@pytest.mark.parametrize("scopes", [["tasks:control", "tasks:payload"], ["tasks:control", "tasks:read"]])
async def test_who_may_cancel_and_not_read_is_not_shown_what_a_task_is_about(
    api: Api, keys: Keys, theirs: dict[str, int], scopes: list[str]
) -> None:
    mine = bearer((await keys.make(*scopes)).secret)
    for change in ("cancel", "replay"):
        answer = await api.post(f"{TASKS}/{theirs['inside']}/{change}", headers=mine)
        assert answer.status_code == 200
        assert not {"payload", "result", "progress", "error"} & set(answer.json())
        assert "theirs" not in answer.text


async def test_workers_tell_nothing_of_what_is_outside(api: Api, keys: Keys, store: Database) -> None:
    async def register(types: list[str] | None, *queues: str) -> int:
        return await workers.register(store, queues=queues, host="pod-1", concurrency=4, lease_seconds=60, types=types)

    both = await register(["echo", "numbers"], "mail", "media")
    other = await register(["numbers"], "media")
    old = await register(None, "mail")

    async def seen(**narrowed: Any) -> dict[int, dict[str, Any]]:
        mine = bearer((await keys.make("queues:read", **narrowed)).secret)
        listed = (await api.get("/api/v1/workers", headers=mine)).json()["workers"]
        return {each.pop("id"): each for each in listed}

    whole = await seen()
    assert list(whole) == [both, other, old]
    assert (whole[both]["host"], whole[both]["running"], whole[both]["concurrency"]) == ("pod-1", 0, 4)
    assert (whole[both]["queues"], whole[both]["types"]) == (["mail", "media"], ["echo", "numbers"])
    assert whole[old]["types"] is None
    to_mail = await seen(queues=["ma*"])
    assert {worker: each["queues"] for worker, each in to_mail.items()} == {both: ["mail"], old: ["mail"]}
    to_echo = await seen(types=["echo"])
    assert {worker: each["types"] for worker, each in to_echo.items()} == {both: ["echo"], old: None}
    for narrowed in (to_mail, to_echo, await seen(own_tasks=True)):
        assert {(each["host"], each["running"]) for each in narrowed.values()} == {(None, None)}
    await store.fetch("UPDATE workers SET expires_at = now() WHERE id = $1", old)
    assert list(await seen()) == [both, other]
