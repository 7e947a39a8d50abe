"""Every change that somebody wishes leaves one row: who, what, when, from where, and how it was before and after."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from bobrai.domain.errors import DatabaseUnavailable
from bobrai.domain.limiting import Limits
from bobrai.store import keys as keys_of_store
from bobrai.store import queues, task_types, tasks
from bobrai.store.pool import Database
from bobrai.store.purging import Purge
from bobrai.store.queues import Wishes
from bobrai.telemetry.logs import captured as capture_logs
from tests.integration.access.conftest import Keys, bearer, closed_api
from tests.integration.api.conftest import Api
from tests.integration.store.builders import claimed, submitted, worker
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase

AUDIT = "/api/v1/audit"
QUEUES = "/api/v1/queues"
KEYS = "/api/v1/keys"
TASKS = "/api/v1/tasks"
NEW = {"kept": True, "paused": False, "max_backlog": None, "limits": None}


@pytest.fixture
async def admin(api: Api, keys: Keys, store: Database) -> str:
    """The id of the key that the client shows from now on; the audit begins with what it does."""
    key = await keys.make("admin")
    api.headers.update(bearer(key.secret))
    await store.fetch("DELETE FROM audit")
    return key.key_id


async def listed(api: Api, **query: Any) -> list[dict[str, Any]]:
    """A page of the audit, the oldest first."""
    answer = await api.get(AUDIT, params=query)
    assert answer.status_code == 200, answer.text
    entries: list[dict[str, Any]] = answer.json()["entries"]
    return entries[::-1]


async def done(api: Api, method: str, path: str, body: Any = None, status: int = 200) -> dict[str, Any]:
    """What one request has left in the audit, which must be one entry that names it."""
    request_id = f"{method}-{path}"[:100]
    before = len(await listed(api, limit=500))
    answer = await api.request(method, path, json=body, headers={"X-Request-ID": request_id})
    assert answer.status_code == status, answer.text
    entries = await listed(api, limit=500)
    assert len(entries) == before + 1
    assert (entries[-1]["request_id"], entries[-1]["source"]) == (request_id, "127.0.0.1")
    return entries[-1]


async def nothing(api: Api, method: str, path: str, body: Any = None, status: int = 200) -> None:
    """One request that leaves nothing in the audit."""
    before = await listed(api, limit=500)
    answer = await api.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert await listed(api, limit=500) == before


def change(entry: dict[str, Any]) -> tuple[str, str, Any, Any]:
    """What was done to what, and how it was before and after."""
    return entry["action"], entry["target"], entry["before"], entry["after"]


async def test_a_cancel_and_a_replay_leave_one_entry_each_and_none_when_repeated(
    api: Api, store: Database, admin: str
) -> None:
    waiting, running = await submitted(store, 2)
    await claimed(store, await worker(store), running)
    entry = await done(api, "POST", f"{TASKS}/{waiting}/cancel")
    assert change(entry) == ("task.cancel", f"task:{waiting}", {"status": "pending"}, {"status": "cancelled"})
    assert (entry["actor"], entry["actor_name"]) == (f"key:{admin}", "test 1")
    assert abs(datetime.fromisoformat(entry["at"]) - datetime.now(UTC)) < timedelta(minutes=5)
    wished = {"status": "processing", "cancel_requested": True}
    entry = await done(api, "POST", f"{TASKS}/{running}/cancel")
    assert change(entry) == ("task.cancel", f"task:{running}", {"status": "processing"}, wished)
    for task_id in (waiting, running):
        await nothing(api, "POST", f"{TASKS}/{task_id}/cancel")
    entry = await done(api, "POST", f"{TASKS}/{waiting}/replay")
    assert change(entry) == ("task.replay", f"task:{waiting}", {"status": "cancelled"}, {"status": "pending"})
    await nothing(api, "POST", f"{TASKS}/{waiting}/replay", status=409)
    await nothing(api, "POST", f"{TASKS}/999999/cancel", status=404)


async def test_cancels_at_the_same_moment_leave_one_entry(api: Api, store: Database, admin: str) -> None:
    running = (await submitted(store, 1))[0]
    await claimed(store, await worker(store), running)
    answers = await asyncio.gather(*(api.post(f"{TASKS}/{running}/cancel") for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert [entry["action"] for entry in await listed(api)] == ["task.cancel"]


async def test_a_queue_made_changed_and_removed_leaves_how_it_was_and_is(api: Api, admin: str) -> None:
    path = f"{QUEUES}/mail"
    assert change(await done(api, "PUT", path, status=201)) == ("queue.create", "queue:mail", None, NEW)
    await nothing(api, "PUT", path)
    paused = {**NEW, "paused": True}
    assert change(await done(api, "PATCH", path, {"paused": True})) == ("queue.change", "queue:mail", NEW, paused)
    await nothing(api, "PATCH", path, {"paused": True})
    limited = {**paused, "max_backlog": 7}
    entry = await done(api, "PUT", path, {"max_backlog": 7})
    assert change(entry) == ("queue.change", "queue:mail", paused, limited)
    await nothing(api, "PATCH", f"{QUEUES}/unknown", {"paused": True}, status=404)
    await nothing(api, "DELETE", f"{QUEUES}/default", status=409)
    assert change(await done(api, "DELETE", path, status=204)) == ("queue.remove", "queue:mail", limited, None)
    await nothing(api, "DELETE", path, status=404)
    assert change(await done(api, "PUT", path, status=201)) == ("queue.create", "queue:mail", None, NEW)


async def test_limits_set_and_taken_back_leave_how_they_were_and_are(api: Api, admin: str) -> None:
    queue, type_ = f"{QUEUES}/mail", "/api/v1/types/echo"
    await done(api, "PUT", queue, status=201)
    wish = {"rate": "10/s", "per_key": {"key": "/account", "weights": {"acme": 3}}}
    limited = {**NEW, "limits": wish}
    for method, path, target, action, was, is_ in (
        ("PATCH", queue, "queue:mail", "queue.change", NEW, limited),
        ("PATCH", type_, "type:echo", "type.change", {"limits": None, "limits_set": False},
         {"limits": wish, "limits_set": True}),
    ):  # fmt: skip
        assert change(await done(api, method, path, {"limits": wish})) == (action, target, was, is_)
        await nothing(api, method, path, {"limits": dict(reversed(wish.items()))})
        assert change(await done(api, method, path, {"limits": None})) == (action, target, is_, was)
        await nothing(api, method, path, {"limits": None})
    await nothing(api, "PATCH", "/api/v1/types/unknown", {"limits": wish}, status=404)
    assert [each["target"] for each in await listed(api, action="type.change")] == ["type:echo"] * 2


async def test_changes_of_a_queue_at_the_same_moment_tell_each_what_was_there_in_truth(
    api: Api, store: Database, admin: str
) -> None:
    await api.put(f"{QUEUES}/mail")
    await asyncio.gather(*(api.patch(f"{QUEUES}/mail", json={"max_backlog": number}) for number in range(10)))
    entries = await listed(api, action="queue.change")
    assert len(entries) == 10
    by_before = {entry["before"]["max_backlog"]: entry["after"]["max_backlog"] for entry in entries}
    reached, order = None, []
    while reached in by_before:
        reached = by_before.pop(reached)
        order.append(reached)
    assert sorted(order) == list(range(10)), "they are one chain"


async def test_a_purge_leaves_one_entry_with_its_numbers_however_many_steps_it_took(
    api: Api, store: Database, admin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bobrai.api.queue_routes._PURGE_BATCH", 2)
    ids = await submitted(store, 5, queue="mail")
    me = await worker(store)
    for task_id in ids[:3]:
        await claimed(store, me, task_id)
    await submitted(store, 3, queue="mail")
    entry = await done(api, "DELETE", f"{QUEUES}/mail?purge=true", status=409)
    assert change(entry) == ("queue.purge", "queue:mail", None, {"cancelled": 5, "asked_to_stop": 3})
    await nothing(api, "DELETE", f"{QUEUES}/mail?purge=true", status=409)


async def test_a_purge_that_is_cut_off_has_told_what_it_did(store: Database) -> None:
    """Each step is committed with its number."""
    await submitted(store, 5, queue="mail")
    purge = Purge(store, "mail", by=SOMEBODY)
    for number in (2, 4, 5):
        await purge.cancel_waiting(limit=2)
        (row,) = await store.fetch("SELECT after FROM audit")
        assert json.loads(row["after"]) == {"cancelled": number, "asked_to_stop": 0}
    assert await purge.cancel_waiting(limit=2) == {}
    assert len(await store.fetch("SELECT FROM audit")) == 1


async def test_keys_leave_what_they_may_and_never_a_secret(api: Api, store: Database, admin: str) -> None:
    wish = {
        "name": "ci", "scopes": ["tasks:read"], "queues": ["mail*"], "types": ["e*"], "own_tasks": True,
        "rate": "30/m", "burst": 5, "max_waiting": 9, "expires_at": "2030-01-31T12:00:00Z",
    }  # fmt: skip
    made = await done(api, "POST", KEYS, wish, status=201)
    key_id = made["target"].removeprefix("key:")
    expires = datetime.fromisoformat(made["after"].pop("expires_at"))
    assert expires == datetime(2030, 1, 31, 12, tzinfo=UTC)
    told = {name: value for name, value in wish.items() if name != "expires_at"}
    assert change(made) == ("key.create", f"key:{key_id}", None, told)
    await nothing(api, "POST", KEYS, wish, status=409)

    rotated = await done(api, "POST", f"{KEYS}/{key_id}/rotate", {"grace_seconds": 60})
    assert rotated["before"] == {"rotated_at": None, "previous_until": None}
    ends, at = (datetime.fromisoformat(rotated["after"][name]) for name in ("previous_until", "rotated_at"))
    assert ends - at == timedelta(seconds=60)
    revoked = await done(api, "DELETE", f"{KEYS}/{key_id}", status=204)
    revoked["before"].pop("expires_at")
    assert change(revoked) == ("key.revoke", f"key:{key_id}", told, None)
    await nothing(api, "DELETE", f"{KEYS}/{key_id}", status=204)
    await nothing(api, "POST", f"{KEYS}/{key_id}/rotate", status=404)

    assert [entry["action"] for entry in await listed(api)] == ["key.create", "key.rotate", "key.revoke"]
    text = str(await store.fetch("SELECT a::text FROM audit AS a"))
    (row,) = await store.fetch("SELECT * FROM api_keys WHERE id = $1", key_id)
    for secret in (row["secret_hash"].hex(), row["previous_hash"].hex(), "hash", "bobrai_"):
        assert secret not in text


async def test_payloads_results_and_errors_are_nowhere_in_the_audit(api: Api, store: Database, admin: str) -> None:
    task_id = await api.submit("of-the-payload")
    await store.fetch(
        "UPDATE tasks SET status = 'failed', finished_at = now(), attempt = 1, result = '\"of-the-result\"',"
        ' errors = \'[{"attempt": 1, "type": "E", "message": "of-the-error"}]\' WHERE id = $1',
        task_id,
    )
    await done(api, "POST", f"{TASKS}/{task_id}/replay")
    await done(api, "POST", f"{TASKS}/{task_id}/cancel")
    text = str(await store.fetch("SELECT a::text FROM audit AS a"))
    assert "of-the" not in text


@pytest.mark.parametrize(
    "what", ["cancel", "replay", "put", "change", "remove", "create", "rotate", "revoke", "limit", "purge"]
)
async def test_without_its_entry_no_change_is_made_and_without_the_change_no_entry(
    store: Database, database: OwnDatabase, keys: Keys, what: str
) -> None:
    waiting, final = await submitted(store, 2)
    await tasks.cancel(store, final, by=SOMEBODY)
    key = await keys.make("tasks:read")
    await queues.ensure(store, ["mail", "full"])
    await submitted(store, 1, queue="full")
    paused = Wishes(paused=True)

    async def change_it() -> object:
        match what:
            case "cancel":
                return await tasks.cancel(store, waiting, by=SOMEBODY)
            case "replay":
                return await tasks.replay(store, final, by=SOMEBODY)
            case "put":
                return await queues.put(store, "new", paused, by=SOMEBODY)
            case "change":
                return await queues.change(store, "mail", paused, by=SOMEBODY)
            case "remove":
                return await queues.remove(store, "mail", by=SOMEBODY)
            case "limit":
                return await task_types.set_limits(store, "echo", Limits(concurrency=1), by=SOMEBODY)
            case "create":
                return await keys.make("tasks:read")
            case "rotate":
                return await keys_of_store.rotate(
                    store, key.key_id, secret_hash=bytes(32), grace_seconds=1.0, by=SOMEBODY
                )
            case "revoke":
                return await keys_of_store.revoke(store, key.key_id, by=SOMEBODY)
            case _:
                return await Purge(store, "full", by=SOMEBODY).cancel_waiting(limit=10)

    async def everything() -> list[str]:
        tables = ("tasks", "outbox", "queues", "task_types", "api_keys", "audit")
        return [str(await store.fetch(f"SELECT t::text FROM {table} AS t ORDER BY 1")) for table in tables]

    before = await everything()
    # The sequence has come to its end, which is the server's fault and no wish's.
    await database.execute("ALTER TABLE audit ALTER id SET MAXVALUE 1000; SELECT setval('audit_id_seq', 1000)")
    with capture_logs() as logs, pytest.raises(DatabaseUnavailable):
        await change_it()
    assert await everything() == before
    assert [line for line in logs if line["event"] == "audit.recorded"] == []

    await database.execute("ALTER TABLE audit ALTER id SET NO MAXVALUE")
    table = {"create": "api_keys", "rotate": "api_keys", "revoke": "api_keys", "cancel": "tasks", "replay": "tasks",
             "limit": "task_types"}  # fmt: skip
    refusing = table.get(what, "tasks" if what == "purge" else "queues")
    await database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        f"CREATE TRIGGER refuse AFTER INSERT OR UPDATE ON {refusing} FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with capture_logs() as logs, pytest.raises(DatabaseUnavailable):
        await change_it()
    assert await everything() == before
    assert [line for line in logs if line["event"] == "audit.recorded"] == []

    await database.execute(f"DROP TRIGGER refuse ON {refusing}")
    with capture_logs() as logs:
        await change_it()
    assert len([line for line in logs if line["event"] == "audit.recorded"]) == (what != "purge")
    assert len(await store.fetch("SELECT FROM audit WHERE id > 1000")) == 1


async def test_one_line_in_the_log_tells_of_each_change(api: Api, store: Database, admin: str) -> None:
    (task_id,) = await submitted(store, 1)
    with capture_logs() as logs:
        await api.post(f"{TASKS}/{task_id}/cancel")
        await api.post(f"{TASKS}/{task_id}/cancel")
        await api.put(f"{QUEUES}/mail")
        await api.put(f"{QUEUES}/mail")
    lines = [line for line in logs if line["event"] == "audit.recorded"]
    assert [(line["action"], line["target"], line["actor"]) for line in lines] == [
        ("task.cancel", f"task:{task_id}", f"key:{admin}"),
        ("queue.create", "queue:mail", f"key:{admin}"),
    ]


async def test_pages_lead_through_all_entries_once_while_others_arrive(api: Api, store: Database, admin: str) -> None:
    ids = await submitted(store, 7)
    for task_id in ids[:5]:
        await api.post(f"{TASKS}/{task_id}/cancel")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await api.get(AUDIT, params={"limit": 2, **cursor})
        assert answer.headers["cache-control"] == "no-store"
        page = answer.json()
        seen += [entry["target"] for entry in page["entries"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
        await api.post(f"{TASKS}/{ids[5]}/cancel")
    assert seen == [f"task:{task_id}" for task_id in ids[4::-1]]


async def test_entries_are_found_by_actor_action_target_and_time(
    api: Api, keys: Keys, store: Database, admin: str
) -> None:
    ids = await submitted(store, 3)
    other = await keys.make("tasks:control", "tasks:read")
    await api.post(f"{TASKS}/{ids[0]}/cancel")
    await api.post(f"{TASKS}/{ids[0]}/replay")
    await api.post(f"{TASKS}/{ids[1]}/cancel", headers=bearer(other.secret))
    await store.fetch("UPDATE audit SET at = now() - interval '1 h' WHERE target = $1", f"task:{ids[1]}")
    half_an_hour_ago = (datetime.now(UTC) - timedelta(minutes=30)).isoformat()
    first, second = f"task:{ids[0]}", f"task:{ids[1]}"

    async def found(**query: Any) -> list[tuple[str, str]]:
        return [(entry["action"], entry["target"]) for entry in await listed(api, **query) if "task" in entry["target"]]

    assert await found(actor=f"key:{other.key_id}") == [("task.cancel", second)]
    assert await found(actor=f"key:{admin}") == [("task.cancel", first), ("task.replay", first)]
    assert await found(action="task.cancel") == [("task.cancel", first), ("task.cancel", second)]
    assert await found(action="task.cancel", target=first) == [("task.cancel", first)]
    assert await found(after=half_an_hour_ago) == [("task.cancel", first), ("task.replay", first)]
    assert await found(before=half_an_hour_ago) == [("task.cancel", second)]
    assert await found(target=f"task:{ids[2]}") == []


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({"action": "task.dance"}, "/query/action"),
        ({"actor": "a\x00b"}, "/query/actor"),
        ({"target": "x" * 501}, "/query/target"),
        ({"after": "yesterday"}, "/query/after"),
        ({"limit": "0"}, "/query/limit"),
        ({"cursor": "?"}, "/query/cursor"),
        ({"who": "me"}, "/query/who"),
    ],
)
async def test_a_wrong_question_is_told_what_to_change(api: Api, admin: str, query: dict[str, str], place: str) -> None:
    answer = await api.get(AUDIT, params=query)
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [place]


async def test_without_a_credential_the_actor_is_anonymous(
    database: OwnDatabase, store: Database, free_port: Callable[[], int]
) -> None:
    (task_id,) = await submitted(store, 1)
    async with closed_api(database.url, free_port(), anonymous_scopes="tasks:control,tasks:read") as api:
        assert (await api.post(f"{TASKS}/{task_id}/cancel")).status_code == 200
        assert (await api.get(AUDIT)).status_code == 401
    (row,) = await store.fetch("SELECT actor, actor_name FROM audit")
    assert tuple(row) == ("anonymous", "anonymous")


async def test_an_entry_needs_an_actor(database: OwnDatabase) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await database.execute(
            "INSERT INTO audit (actor, actor_name, action, target, source, request_id) VALUES ('', '', '', '', '', '')"
        )
