"""Credentials that are narrowed learn of no tasks outside of their grant by sending alike ones, and change none."""

from typing import Any

import pytest

from bobrai.domain.access import Allowance
from tests.integration.access.conftest import Keys, bearer
from tests.integration.api.conftest import Api

TASKS = "/api/v1/tasks"


async def send(api: Api, secret: str, n: int = 1, **fields: Any) -> tuple[int, int]:
    """Submit one of alike tasks; returns status and id."""
    task = {
        "type": "echo",
        "queue": "mail.a",
        "payload": {"order": 1, "n": n},
        "unique": {"key": "/order", "on_conflict": "replace"},
        **fields,
    }
    answer = await api.post(TASKS, json=task, headers=bearer(secret))
    return answer.status_code, answer.json()["task_id"]


async def payload(api: Api, secret: str, task_id: int) -> Any:
    """What is in a task."""
    return (await api.get(f"{TASKS}/{task_id}", headers=bearer(secret))).json()["payload"]["n"]


async def test_alike_tasks_of_keys_that_see_their_own_only_are_each_its_own(api: Api, keys: Keys) -> None:
    whole, *narrowed = (await keys.make()), (await keys.make(own_tasks=True)), (await keys.make(own_tasks=True))
    ids = []
    for n, key in enumerate((whole, *narrowed)):
        status, task_id = await send(api, key.secret, n)
        assert status == 201
        ids.append(task_id)
    for n, key in enumerate((whole, *narrowed)):
        assert await payload(api, key.secret, ids[n]) == n
        assert await send(api, key.secret, n + 10) == (200, ids[n])
        assert await payload(api, key.secret, ids[n]) == n + 10


async def test_alike_tasks_in_queues_that_a_key_does_not_reach_are_not_there(api: Api, keys: Keys) -> None:
    whole = await keys.make()
    one, other = await keys.make(queues=["mail*"]), await keys.make(queues=["mail.a", "web"])
    assert (await send(api, whole.secret, queue="web"))[0] == 201
    status, first = await send(api, one.secret, 1)
    assert status == 201
    assert await send(api, other.secret, 2) == (200, first)  # in a queue that both reach
    assert await payload(api, one.secret, first) == 2
    assert (await send(api, other.secret, 3, queue="web"))[0] == 201
    assert await payload(api, one.secret, first) == 2


@pytest.mark.parametrize("narrowed", [{}, {"types": ["echo"]}], ids=["whole", "to types"])
async def test_keys_that_reach_whatever_is_alike_share_it(api: Api, keys: Keys, narrowed: dict[str, Any]) -> None:
    one, other = await keys.make(), await keys.make(**narrowed)
    status, first = await send(api, one.secret, 1)
    assert status == 201
    assert await send(api, other.secret, 2, queue="web") == (200, first)
    assert await payload(api, one.secret, first) == 2


async def test_duplicates_count_not_as_tasks_of_a_key_that_wait(api: Api, keys: Keys) -> None:
    key = await keys.make(allowance=Allowance.of(max_waiting=3))
    statuses = [(await send(api, key.secret, n))[0] for n in range(10)]
    assert statuses == [201] + [200] * 9
    for order in (2, 3):
        assert (await send(api, key.secret, payload={"order": order}))[0] == 201
    refused = await api.post(TASKS, json={"type": "echo", "payload": 1}, headers=bearer(key.secret))
    assert refused.json()["type"] == "urn:bobrai:problem:too-many-waiting"
