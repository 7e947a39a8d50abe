"""Limits of queues and types are set, replaced, removed and shown over HTTP, and what cannot be kept is refused."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from bobrai.domain import limits
from bobrai.domain.limiting import Limits, PerKey
from bobrai.domain.task import TaskType
from bobrai.store import admissions, task_types
from bobrai.store.pool import Database
from tests.integration.api.conftest import Api, client_of
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

MEDIA = "/api/v1/queues/media"
ECHO = "/api/v1/types/echo"
EVERYTHING = {
    "concurrency": 3,
    "rate": "10/s",
    "burst": 20,
    "per_key": {"key": "/account", "concurrency": 3, "rate": "2/m", "burst": 5, "weights": {"acme": 3, "": 2}},
}
AS_VALUE = Limits(
    concurrency=3,
    rate="10/s",
    burst=20,
    per_key=PerKey("/account", concurrency=3, rate="2/m", burst=5, weights={"acme": 3, "": 2}),
)


async def queue(api: Api, method: str, body: dict[str, Any]) -> Any:
    """What a queue shows as its limits after a change."""
    answer = await api.request(method, MEDIA, json=body)
    assert answer.status_code in {200, 201}, answer.text
    assert (await api.get(MEDIA)).json() == answer.json()
    return answer.json()["limits"]


async def type_(api: Api, wish: Any) -> dict[str, Any]:
    """What a type shows after its limits were set."""
    answer = await api.patch(ECHO, json={"limits": wish})
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    assert (await api.get(ECHO)).json() == view
    return view


@pytest.mark.parametrize("stored", ['{"concurrency": "a few"}', '{"rate": "10/fortnight"}', '{"per_key": {}}', "[]"])
async def test_limits_of_another_release_that_cannot_be_read_are_shown_as_none_which_they_are(
    api: Api, store: Database, stored: str
) -> None:
    await queue(api, "PUT", {"limits": EVERYTHING})
    await type_(api, EVERYTHING)
    await store.fetch("UPDATE queues SET limits = $1 WHERE name = 'media'", stored)
    await store.fetch("UPDATE task_types SET limits = $1 WHERE name = 'echo'", stored)
    assert (await admissions.limited(store)).queues == {"media": Limits()}
    for path in (MEDIA, ECHO):
        answer = await api.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.json()["limits"] is None
        assert (await api.get(path.rpartition("/")[0])).status_code == 200
    assert await queue(api, "PATCH", {"limits": EVERYTHING}) == EVERYTHING


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_queues_limits_are_set_replaced_and_removed_as_a_whole(api: Api, store: Database, method: str) -> None:
    assert await queue(api, "PUT", {"limits": EVERYTHING}) == EVERYTHING
    assert (await admissions.limited(store)).queues == {"media": AS_VALUE}
    assert await queue(api, method, {"paused": True}) == EVERYTHING, "what is left out stays"
    assert await queue(api, method, {"limits": {"rate": "1/d"}}) == {"rate": "1/d"}
    assert await queue(api, method, {"limits": {"per_key": {"key": "/a"}}}) == {"per_key": {"key": "/a"}}
    assert (await api.get(MEDIA)).json()["paused"] is True
    for nothing in (None, {}):
        assert await queue(api, method, {"limits": {"concurrency": 2.0}}) == {"concurrency": 2}
        assert await queue(api, method, {"limits": nothing}) is None
        assert (await admissions.limited(store)).queues == {}


async def test_a_new_queue_has_no_limits(api: Api) -> None:
    assert await queue(api, "PUT", {}) is None


async def test_a_types_limits_take_the_place_of_the_declared_ones_until_they_are_taken_back(
    api: Api, store: Database
) -> None:
    declared = {"concurrency": 20, "per_key": {"key": "/account", "weights": {"acme": 2}}}
    told = Limits(concurrency=20, per_key=PerKey("/account", weights={"acme": 2}))
    announced = TaskType(name="echo", limits=told, runs_in="process", memory_mb=128)
    await task_types.announce(store, [announced])
    view = (await api.get(ECHO)).json()
    assert (view["limits"], view["declared_limits"], view["limits_set"]) == (declared, declared, False)
    assert (view["runs_in"], view["memory_mb"]) == ("process", 128)
    for wish, in_force in ((EVERYTHING, EVERYTHING), ({"rate": "5/m"}, {"rate": "5/m"}), ({}, None)):
        view = await type_(api, wish)
        assert (view["limits"], view["declared_limits"], view["limits_set"]) == (in_force, declared, True)
        await task_types.announce(store, [announced])
        assert (await api.get(ECHO)).json()["limits"] == in_force
    view = await type_(api, None)
    assert (view["limits"], view["limits_set"]) == (declared, False)
    other = (await api.get("/api/v1/types/demo")).json()
    assert (other["limits"], other["declared_limits"], other["limits_set"]) == (None, None, False)
    assert (other["runs_in"], other["memory_mb"]) == (None, None)


@pytest.mark.parametrize(
    "most",
    [
        {"concurrency": limits.MAX_CONCURRENCY, "rate": "1000000/s", "burst": limits.MAX_RATE},
        {"per_key": {"key": "/" + "a" * (limits.MAX_KEY_POINTER - 1)}},
        {"per_key": {"key": "/a~1b/0/~0", "weights": {"a" * limits.MAX_KEY_VALUE: limits.MAX_WEIGHT}}},
        {"per_key": {"key": "/a", "weights": {f"{n:0128}": 1 for n in range(limits.MAX_WEIGHTS)}}},
    ],
    ids=["numbers", "pointer", "weight", "weights"],
)
async def test_every_bound_may_be_reached(api: Api, most: Any) -> None:
    assert await queue(api, "PUT", {"limits": most}) == most
    assert (await type_(api, most))["limits"] == most


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        (7, ""), ([], ""), ("10/s", ""), ({"more": 1}, "/more"),
        ({"concurrency": 0}, "/concurrency"), ({"concurrency": None}, "/concurrency"),
        ({"concurrency": limits.MAX_CONCURRENCY + 1}, "/concurrency"), ({"concurrency": 1.5}, "/concurrency"),
        ({"concurrency": "3"}, "/concurrency"), ({"concurrency": True}, "/concurrency"),
        ({"rate": 10}, "/rate"), ({"rate": "0/s"}, "/rate"), ({"rate": "1/w"}, "/rate"), ({"rate": "1 / s"}, "/rate"),
        ({"rate": "1000001/s"}, "/rate"), ({"rate": None}, "/rate"),
        ({"burst": 5}, "/burst"), ({"rate": "1/s", "burst": 0}, "/burst"), ({"rate": "1/x", "burst": 5}, "/rate"),
        ({"rate": "1/s", "burst": limits.MAX_RATE + 1}, "/burst"),
        ({"per_key": None}, "/per_key"), ({"per_key": "/account"}, "/per_key"), ({"per_key": {}}, "/per_key/key"),
        ({"per_key": {"key": "account"}}, "/per_key/key"), ({"per_key": {"key": ""}}, "/per_key/key"),
        ({"per_key": {"key": "/a~"}}, "/per_key/key"), ({"per_key": {"key": "/a\x00"}}, "/per_key/key"),
        ({"per_key": {"key": "/" + "a" * limits.MAX_KEY_POINTER}}, "/per_key/key"),
        ({"per_key": {"key": "/a", "burst": 5}}, "/per_key/burst"),
        ({"per_key": {"key": "/a", "concurrency": 0}}, "/per_key/concurrency"),
        ({"per_key": {"key": "/a", "per_key": {"key": "/b"}}}, "/per_key/per_key"),
        ({"per_key": {"key": "/a", "weights": []}}, "/per_key/weights"),
        ({"per_key": {"key": "/a", "weights": {"acme": 0}}}, "/per_key/weights/acme"),
        ({"per_key": {"key": "/a", "weights": {"a/b": limits.MAX_WEIGHT + 1}}}, "/per_key/weights/a~1b"),
        ({"per_key": {"key": "/a", "weights": {"acme": 1.5}}}, "/per_key/weights/acme"),
        ({"per_key": {"key": "/a", "weights": {"a\x00": 1}}}, "/per_key/weights"),
        ({"per_key": {"key": "/a", "weights": {"a" * 129: 1}}}, "/per_key/weights"),
        ({"per_key": {"key": "/a", "weights": {str(n): 1 for n in range(1001)}}}, "/per_key/weights"),
    ],
)  # fmt: skip
async def test_what_cannot_be_kept_is_refused_with_its_place(
    api: Api, store: Database, wrong: Any, pointer: str
) -> None:
    await api.put(MEDIA)
    for method, path in (("PUT", MEDIA), ("PATCH", MEDIA), ("PATCH", ECHO)):
        answer = await api.request(method, path, json={"limits": wrong})
        assert answer.status_code == 422, answer.text
        assert [fault["pointer"] for fault in answer.json()["errors"]] == [f"/limits{pointer}"]
    limited = await admissions.limited(store)
    assert not limited.any


async def test_a_burst_without_its_rate_is_told_so(api: Api) -> None:
    answer = await api.put(MEDIA, json={"limits": {"burst": 5}})
    assert answer.json()["detail"] == "/limits/burst: needs a rate beside it, such as 10/s"
    bounds = (await api.get("/api/openapi.json")).json()["components"]["schemas"]
    for name in ("LimitsWish", "PerKeyWish"):
        assert bounds[name]["dependentRequired"] == {"burst": ["rate"]}


@pytest.mark.parametrize(
    ("body", "pointer"), [({}, "/limits"), ({"limits": {}, "queue": "x"}, "/queue"), ([], ""), (None, "")]
)
async def test_a_wrong_change_of_a_type_is_refused_with_its_place(api: Api, body: Any, pointer: str) -> None:
    content = json.dumps(body)
    answer = await api.patch(ECHO, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


@pytest.mark.parametrize("name", ["unheard", "%00", "a b"])
async def test_a_type_that_nobody_has_announced_cannot_be_limited(api: Api, name: str) -> None:
    answer = await api.patch(f"/api/v1/types/{name}", json={"limits": {"concurrency": 1}})
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:bobrai:problem:type-not-found")


async def test_what_one_process_sets_another_shows_and_a_restart_keeps(
    api: Api, database: OwnDatabase, free_port: Callable[[], int]
) -> None:
    await queue(api, "PUT", {"limits": EVERYTHING})
    await type_(api, EVERYTHING)
    async with client_of(database.url, free_port()) as other:
        for path in (MEDIA, ECHO):
            assert (await other.get(path)).json()["limits"] == EVERYTHING
            await other.patch(path, json={"limits": {"concurrency": 1}})
            assert (await api.get(path)).json()["limits"] == {"concurrency": 1}


async def test_what_is_held_back_counts_for_the_maximum_backlog(api: Api, store: Database) -> None:
    await api.put(MEDIA, json={"max_backlog": 1_000_000})
    await store.fetch(
        "UPDATE queues SET due = 1, held = 999_997, delayed = 1, between_attempts = 1, measured_at = now()"
    )

    async def is_full() -> bool:
        answer = await api.post("/api/v1/tasks", json={"type": "echo", "payload": 1, "queue": "media"})
        return answer.status_code == 429

    await eventually(is_full, message="the figures are known")
    backlog = (await api.get(MEDIA)).json()["backlog"]
    assert backlog == {"due": 1, "held": 999_997, "delayed": 1, "between_attempts": 1}
