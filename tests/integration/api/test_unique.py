"""A submission says, or its type does, of which tasks there is one at a time; the answer says which one that is."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from bobrai.domain.task import TaskType
from bobrai.domain.unique import Unique
from bobrai.store import task_types
from bobrai.store.pool import Database
from tests.integration.api.conftest import Api, client_of
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

TASKS = "/api/v1/tasks"
ORDER = {"key": "/order"}


async def send(api: Api, payload: Any, unique: Any = ORDER, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Submit a task; returns the status and the body."""
    answer = await api.post(TASKS, json={"type": "echo", "payload": payload, "unique": unique, **fields})
    return answer.status_code, answer.json()


async def made(api: Api, payload: Any, unique: Any = ORDER, **fields: Any) -> int | None:
    """Submit a task; returns its id, or None for a duplicate."""
    status, body = await send(api, payload, unique, **fields)
    assert (status, "duplicate" in body) in {(201, False), (200, True)}, body
    return None if status == 200 else int(body["task_id"])


async def samples(api: Api, name: str) -> float:
    """What a counter says of the type echo."""
    text = (await api.get("/metrics")).text
    return sum(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name) and 'type="echo"' in line
    )


async def test_a_duplicate_is_answered_with_the_task_that_is_there(api: Api, database: OwnDatabase) -> None:
    first = await made(api, {"order": 7, "by": "ada"})
    answer = await api.post(TASKS, json={"type": "echo", "payload": {"order": 7}, "unique": ORDER, "priority": 9})
    assert (answer.status_code, answer.json()["task_id"], answer.json()["duplicate"]) == (200, first, True)
    assert answer.headers["location"] == f"{TASKS}/{first}"
    assert await made(api, {"order": 8}) is not None
    rows = await database.fetch("SELECT payload, priority FROM tasks ORDER BY id")
    assert [(json.loads(row["payload"]), row["priority"]) for row in rows] == [
        ({"order": 7, "by": "ada"}, 0),
        ({"order": 8}, 0),
    ]


async def test_the_first_versions_path_says_the_same(api: Api) -> None:
    task = {"payload": "x", "unique": {}}
    first = (await api.post("/tasks", json=task)).json()["task_id"]
    again = await api.post("/tasks", json=task)
    assert (again.status_code, again.json()) == (200, {"task_id": first, "duplicate": True})
    assert again.headers["location"] == f"/tasks/{first}"


async def test_a_hundred_at_once_on_two_replicas_make_one_task(
    api: Api, database: OwnDatabase, free_port: Callable[[], int]
) -> None:
    async with client_of(database.url, free_port()) as other:
        answers = await asyncio.gather(*(send((api, other)[n % 2], {"order": 1, "n": n}) for n in range(100)))
    assert len({body["task_id"] for _, body in answers}) == 1
    assert sorted(status for status, _ in answers) == [200] * 99 + [201]
    assert await database.fetchval("SELECT count(*) FROM tasks") == 1


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ('{"a":1,"b":[1,{"c":null}]}', '{ "b" : [1, {"c": null}], "a": 1 }', True),
        ('{"a":1}', '{"a":1.0}', True),
        ("100", "1e2", True),
        ('"\\u00fc"', '"ü"', True),
        ('{"a":2,"a":1}', '{"a":1}', True),
        ("0", "-0.0", True),
        ("[1,2]", "[2,1]", False),
        ("1", '"1"', False),
        ("1", "true", False),
        ("0", "false", False),
        ("null", "{}", False),
        ("[" * 200 + "]" * 200, "[" * 199 + " [ ] " + "]" * 199, True),
        ('{"a":' * 200 + "1" + "}" * 200, '{"a":' * 200 + "1e0" + "}" * 200, True),
        ("9007199254740993", "9007199254740992", False),
        ("123456789012345678901234567890", "123456789012345678901234567891", False),
    ],
)
async def test_payloads_are_alike_when_their_values_are(api: Api, one: str, other: str, alike: bool) -> None:
    statuses = []
    for text in (one, other):
        body = b'{"type":"echo","unique":{},"payload":%s}' % text.encode()
        answer = await api.post(TASKS, content=body, headers={"content-type": "application/json"})
        statuses.append(answer.status_code)
    assert statuses == [201, 200 if alike else 201]


@pytest.mark.parametrize(
    ("pointer", "one", "other"),
    [
        ("/a/b", {"a": {"b": [1], "c": 1}}, {"a": {"b": [1], "c": 2}}),
        ("/0", [{"x": 1}, 1], [{"x": 1}, 2]),
        ("/a~1b~0", {"a/b~": None, "n": 1}, {"a/b~": None, "n": 2}),
        ("/", {"": 1, "n": 1}, {"": 1, "n": 2}),
        ("/01", {"01": 1, "n": 1}, {"01": 1, "n": 2}),
    ],
)
async def test_a_key_is_a_json_pointer_to_a_value_of_any_kind(api: Api, pointer: str, one: Any, other: Any) -> None:
    assert await made(api, one, {"key": pointer})
    assert await made(api, other, {"key": pointer}) is None


async def test_types_and_keys_keep_tasks_apart_and_queues_do_not(api: Api) -> None:
    payload = {"order": 1, "invoice": 1}
    assert await made(api, payload)
    assert await made(api, payload, {"key": "/invoice"})
    assert await made(api, payload, type="demo")
    assert await made(api, payload, queue="elsewhere") is None


@pytest.mark.parametrize(
    ("payload", "unique", "pointer", "detail"),
    [
        ({"n": 1}, {"key": "/order"}, "/unique/key", "the payload has nothing at '/order'"),
        ([1], {"key": "/1"}, "/unique/key", "the payload has nothing at '/1'"),
        ([1], {"key": "/-"}, "/unique/key", "the payload has nothing at '/-'"),
        ([1], {"key": "/00"}, "/unique/key", "the payload has nothing at '/00'"),
        ("text", {"key": "/0"}, "/unique/key", "the payload has nothing at '/0'"),
        (1, {"key": "order"}, "/unique/key", "pattern"),
        (1, {"key": "/~2"}, "/unique/key", "pattern"),
        (1, {"key": "/" + "x" * 200}, "/unique/key", "200"),
        (1, {"key": 7}, "/unique/key", "string"),
        (1, {"while": "always"}, "/unique/for_seconds", "is required with while always"),
        (1, {"while": "running"}, "/unique/while", "'waiting', 'unfinished' or 'always'"),
        (1, {"on_conflict": "drop"}, "/unique/on_conflict", "'keep' or 'replace'"),
        (1, {"for_seconds": 0}, "/unique/for_seconds", "greater than or equal to 0.001"),
        (1, {"for_seconds": 366 * 86_400 + 1}, "/unique/for_seconds", "less than or equal to"),
        (1, {"for_seconds": None}, "/unique/for_seconds", "number"),
        (1, {"while_": "always"}, "/unique/while_", "is not a known field"),
        (1, "/order", "/unique", "must be an object"),
        (1, True, "/unique", "must be an object"),
    ],
)
async def test_what_is_wrong_is_refused_with_its_place(
    api: Api, database: OwnDatabase, payload: Any, unique: Any, pointer: str, detail: str
) -> None:
    status, body = await send(api, payload, unique)
    assert (status, [fault["pointer"] for fault in body["errors"]]) == (422, [pointer])
    assert detail in body["errors"][0]["detail"]
    assert await database.fetchval("SELECT count(*) FROM tasks") == 0


async def test_a_batch_says_which_of_its_tasks_were_there(api: Api, database: OwnDatabase) -> None:
    there = await made(api, {"order": 1})
    items = [{"type": "echo", "payload": {"order": n}, "unique": ORDER} for n in (1, 2, 2)]
    plain = {"type": "echo", "payload": {"order": 2}}
    answer = await api.post(f"{TASKS}/batch", json={"tasks": [*items, plain]})
    first, second, third, fourth = answer.json()["task_ids"]
    assert (answer.status_code, answer.json()["duplicates"], first, second == third) == (201, [0, 2], there, True)
    assert len({first, second, fourth}) == 3
    again = await api.post(f"{TASKS}/batch", json={"tasks": items})
    assert again.status_code == 200
    assert (again.json()["task_ids"], again.json()["duplicates"]) == ([first, second, second], [0, 1, 2])
    assert "duplicates" not in (await api.post(f"{TASKS}/batch", json={"tasks": [plain]})).json()

    items[1]["payload"] = {}
    refused = await api.post(f"{TASKS}/batch", json={"tasks": items})
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/tasks/1/unique/key"]
    assert await database.fetchval("SELECT count(*) FROM tasks") == 4


async def test_replacing_gives_what_waits_the_latest_contents_and_time(api: Api) -> None:
    rule = {**ORDER, "while": "waiting", "on_conflict": "replace"}
    first = await made(api, {"order": 1, "n": 1}, rule, delay_seconds=3600)
    status, body = await send(
        api, {"order": 1, "n": 2}, rule, run_at="2098-01-01T00:00:00Z", priority=5, timeout_seconds=9, max_attempts=7
    )
    assert (status, body["task_id"]) == (200, first)
    task = (await api.get(f"{TASKS}/{first}")).json()
    assert (task["payload"], task["priority"], task["max_attempts"]) == ({"order": 1, "n": 2}, 5, 7)
    assert task["run_at"].startswith("2098-01-01T00:00:00")


async def test_a_replacement_that_has_to_wait_holds_up_nobody_else(api: Api, database: OwnDatabase) -> None:
    first = await made(api, {"order": 1})
    async with database.connect() as other:
        await other.execute(f"BEGIN; SELECT FROM tasks WHERE id = {first} FOR UPDATE")
        replacing = asyncio.create_task(send(api, {"order": 1, "n": 2}, {**ORDER, "on_conflict": "replace"}))
        await eventually(lambda: _waits(database))
        assert await made(api, {"order": 1}) is None
        assert await made(api, {"order": 2})
        assert await made(api, {"order": 1}, None)
        await other.execute("COMMIT")
    assert (await replacing)[0] == 200
    assert (await api.get(f"{TASKS}/{first}")).json()["payload"] == {"order": 1, "n": 2}


async def _waits(database: OwnDatabase) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await database.fetchval(waiting))


async def test_what_was_cancelled_holds_no_more(api: Api) -> None:
    first = await made(api, {"order": 1})
    assert (await api.post(f"{TASKS}/{first}/cancel")).status_code == 200
    assert await made(api, {"order": 1}) not in {None, first}


async def test_a_repetition_under_a_key_is_answered_as_the_first_was(api: Api) -> None:
    first = await made(api, {"order": 1})
    for number, expected in enumerate([({"order": 1}, 200), ({"order": 2}, 201)]):
        payload, status = expected
        task = {"type": "echo", "payload": payload, "unique": ORDER}
        header = {"idempotency-key": f"k{number}"}
        answers = [await api.post(TASKS, json=task, headers=header) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [status] * 3
        assert len({answer.text for answer in answers}) == 1
        assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true", "true"]
        assert (answers[0].json()["task_id"] == first) == (status == 200)
    mismatch = await api.post(TASKS, json={"payload": 1, "unique": {}}, headers={"idempotency-key": "k0"})
    assert mismatch.json()["type"] == "urn:bobrai:problem:idempotency-mismatch"


# --- what a type says -------------------------------------------------------------------------------------------------


@pytest.fixture
async def orders(api: Api, store: Database) -> str:
    """A type of whose tasks there is one at a time for each order."""
    await task_types.announce(store, [TaskType(name="order", unique=Unique(key="/order", for_seconds=3600.0))])
    await eventually(lambda: _is_known(api))
    return "order"


async def _is_known(api: Api) -> bool:
    return (await api.get("/api/v1/types/order")).status_code == 200


async def test_what_a_type_says_holds_for_tasks_that_say_nothing(api: Api, orders: str) -> None:
    first = (await api.post(TASKS, json={"type": orders, "payload": {"order": 1}})).json()["task_id"]
    again = await api.post(TASKS, json={"type": orders, "payload": {"order": 1, "n": 2}})
    assert (again.status_code, again.json()["task_id"]) == (200, first)
    assert await made(api, {"order": 1}, None, type=orders) not in {None, first}
    assert await made(api, {"order": 1, "n": 1}, {}, type=orders)
    assert await made(api, {"order": 1, "n": 2}, {}, type=orders)
    refused = await api.post(TASKS, json={"type": orders, "payload": {}})
    (fault,) = refused.json()["errors"]
    assert fault["pointer"] == "/unique/key"
    assert fault["detail"] == "the payload has nothing at '/order', which the type is unique by"


async def test_a_type_shows_its_rule(api: Api, orders: str) -> None:
    shown = (await api.get(f"/api/v1/types/{orders}")).json()["unique"]
    assert shown == {"key": "/order", "for_seconds": 3600.0, "while": "unfinished", "on_conflict": "keep"}
    assert (await api.get("/api/v1/types/echo")).json()["unique"] is None


# --- room and counters ------------------------------------------------------------------------------------------------


async def test_duplicates_take_no_room_in_the_backlog(database: OwnDatabase, store: Database, free_port: Any) -> None:
    async with client_of(database.url, free_port(), max_backlog=5, refresh_seconds=60) as api:
        assert await made(api, {"order": 1})
        for _ in range(20):
            assert await made(api, {"order": 1}) is None
        batch = [{"type": "echo", "payload": {"order": n}, "unique": ORDER} for n in (1, 2, 2)]
        for _ in range(5):
            assert (await api.post(f"{TASKS}/batch", json={"tasks": batch})).status_code in {200, 201}
        assert [await made(api, {"order": n}) is not None for n in (3, 4, 5)] == [True] * 3
        assert (await send(api, {"order": 6}))[0] == 429


async def test_duplicates_are_counted_apart(api: Api) -> None:
    before = [await samples(api, f"bobrai_tasks_{name}_total") for name in ("submitted", "duplicate")]
    for _ in range(3):
        await send(api, {"order": 1})
    batch = [{"type": "echo", "payload": {"order": n}, "unique": ORDER} for n in (1, 2, 2)]
    await api.post(f"{TASKS}/batch", json={"tasks": batch}, headers={"idempotency-key": "k"})
    await api.post(f"{TASKS}/batch", json={"tasks": batch}, headers={"idempotency-key": "k"})
    after = [await samples(api, f"bobrai_tasks_{name}_total") for name in ("submitted", "duplicate")]
    assert [later - earlier for earlier, later in zip(before, after, strict=True)] == [2, 4]
