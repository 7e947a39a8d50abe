"""Lanes, admissions and rates, row by row: what counts as running is what the tasks' own rows say."""

import asyncio
import json
import re
from typing import Any

import pytest

from bobrai.domain.limiting import Limits, PerKey
from bobrai.domain.message import Hint
from bobrai.domain.task import OutcomeKind, TaskType
from bobrai.store import admissions, attempts, outbox, submission, task_types, workers
from bobrai.store.admissions import Bound, Bucket, Lane
from bobrai.store.pool import Database
from bobrai.store.queries import statement
from bobrai.telemetry.logs import captured
from tests.integration.store.builders import blocked, expired, new_task, outbox_rows, outcome, worker
from tests.support.eventually import eventually

PER_ACCOUNT = {"per_key": {"key": "/account", "concurrency": 1}}


async def limited(store: Database, limits: dict[str, Any] | None = PER_ACCOUNT) -> None:
    await store.fetch("UPDATE queues SET limits = $1", None if limits is None else json.dumps(limits))


async def held(store: Database, *accounts: str, **fields: Any) -> list[int]:
    """Submit tasks of these accounts, and have the relay put them into their lanes."""
    tasks = [new_task(payload=json.dumps({"account": account}), **fields) for account in accounts]
    ids = await submission.submit(store, tasks)
    async with store.repeatable() as transaction:
        due = await outbox.take_due(transaction, {"default": 100}, 100)
        assert await admissions.hold(transaction, due) == set(ids)
    return ids


async def lanes(store: Database, **more: Any) -> list[Lane]:
    return await admissions.lanes(store, {"default": b""}, **{"most": 100, "room": 1000, **more})


async def let_through(store: Database) -> list[Hint]:
    """Let the first of each lane through."""
    found = await admissions.admit(store, [(lane, 1) for lane in await lanes(store)])
    return sorted(Hint(each.hint.task_id, each.hint.attempt) for each in found)


async def places(store: Database) -> dict[str, tuple[int, int]]:
    """What is let through, and what of it waits, by key."""
    return {each.keys.queue_key: (each.admitted, each.waiting) for each in await admissions.settled(store)}


async def claim(store: Database, worker_id: int, hints: list[Hint]) -> list[Any]:
    return await attempts.claim(store, worker_id, hints, may_be_limited=True)


def test_a_claim_with_admissions_differs_from_the_plain_one_in_them_alone() -> None:
    plain = statement("claim_admitted").replace("/* claim_admitted */", "/* claim */")
    for added in (
        r", admitted AS MATERIALIZED \(.*?\n\)",
        r"\n      AND \(t\.id IN .*?task_types WHERE limits IS NOT NULL\)\)",
    ):
        plain, times = re.subn(added, "", plain, flags=re.DOTALL)
        assert times == 1, added
    assert plain == statement("claim")


async def test_a_limited_task_is_claimed_with_its_admission_only(store: Database) -> None:
    await limited(store)
    first, second = await held(store, "a", "a")
    me = await worker(store)
    assert await let_through(store) == [Hint(first, 0)]
    claims = await claim(store, me, [Hint(first, 0), Hint(second, 0)])
    assert [each.task_id for each in claims] == [first]


@pytest.mark.parametrize("end", [OutcomeKind.DONE, OutcomeKind.RETRY, OutcomeKind.SNOOZE, OutcomeKind.INTERRUPTED])
async def test_a_place_is_taken_from_the_admission_to_the_end_of_the_attempt(store: Database, end: OutcomeKind) -> None:
    await limited(store)
    await held(store, "a")
    me = await worker(store)
    hints = await let_through(store)
    assert await places(store) == {"a": (1, 1)}
    (mine,) = await claim(store, me, hints)
    assert await places(store) == {"a": (1, 0)}
    ended = outcome(mine, end)
    await (attempts.complete if end is OutcomeKind.DONE else attempts.end)(store, me, [ended])
    assert (await places(store)).get("a", (0, 0)) == (0, 0)
    assert await places(store) == {}


async def test_the_place_of_a_lost_worker_is_free_once_its_task_is_taken_back(store: Database) -> None:
    await limited(store)
    await held(store, "a")
    me = await worker(store)
    await claim(store, me, await let_through(store))
    await expired(store, me)
    assert await places(store) == {"a": (1, 0)}
    await workers.take_back(store)
    await places(store)
    assert await places(store) == {}


async def test_a_claim_that_is_under_way_keeps_its_place(store: Database) -> None:
    """A hint that was published twice comes again after a shutdown gave its attempt back: nobody may miscount it."""
    await limited(store)
    await held(store, "a")
    me = await worker(store)
    hints = await let_through(store)
    (mine,) = await claim(store, me, hints)
    await attempts.end(store, me, [outcome(mine, OutcomeKind.INTERRUPTED)])
    async with store.transaction() as under_way:
        (again,) = await claim(under_way, me, hints)
        assert again.task_id == hints[0].task_id
        assert await places(store) == {"a": (1, 0)}, "its row is locked: it may be about to run"
    assert await places(store) == {"a": (1, 0)}


async def test_a_place_that_is_being_taken_away_lets_nobody_claim(store: Database) -> None:
    await limited(store)
    await held(store, "a")
    me = await worker(store)
    hints = await let_through(store)
    (mine,) = await claim(store, me, hints)
    await attempts.end(store, me, [outcome(mine, OutcomeKind.INTERRUPTED)])
    async with store.transaction() as deciding:
        await admissions.settled(deciding)
        late = asyncio.create_task(claim(store, me, hints))
        await eventually(lambda: blocked(store))
    assert await late == []


async def test_what_runs_already_counts_under_limits_that_are_set_then(store: Database) -> None:
    ids = await submission.submit(store, [new_task(payload='{"account": "a"}')] * 2)
    me = await worker(store)
    await attempts.claim(store, me, [Hint(each, 0) for each in ids])
    await limited(store)
    await admissions.count_anew(store)
    assert await places(store) == {"a": (2, 0)}
    await limited(store, {"per_key": {"key": "/other", "concurrency": 1}})
    await admissions.count_anew(store)
    assert await places(store) == {"": (2, 0)}


async def test_lanes_of_other_limits_are_old_and_dissolve(store: Database) -> None:
    await limited(store)
    ids = await held(store, "a", "a", "b")
    await limited(store, {"per_key": {"key": "/other"}})
    old = await lanes(store)
    assert [lane.is_old for lane in old] == [True, True]
    assert sum([await admissions.dissolve(store, lane, limit=100) for lane in old]) == 3
    assert [row["task_id"] for row in await outbox_rows(store)] == ids
    assert await lanes(store) == []
    await limited(store, None)
    async with store.repeatable() as transaction:
        due = await outbox.take_due(transaction, {"default": 100}, 100)
        assert await admissions.hold(transaction, due) == set()


async def test_lanes_are_read_from_after_the_last_one_on(store: Database) -> None:
    await limited(store)
    await held(store, *"abcabca")
    every = await lanes(store)
    assert {lane.keys.queue_key: lane.waiting for lane in every} == {"a": 3, "b": 2, "c": 2}
    first = await lanes(store, most=2)
    rest = await admissions.lanes(store, {"default": first[-1].id}, most=2, room=1000)
    assert [*first, *rest] == every
    assert {lane.waiting for lane in await lanes(store, room=3)} == {1}


async def test_priority_then_time_decides_within_a_lane(store: Database) -> None:
    await limited(store)
    low, later = await held(store, "a", "a")
    (high,) = await held(store, "a", priority=5)
    (lane,) = await lanes(store)
    order = [(await admissions.admit(store, [(lane, 1)]))[0].hint.task_id for _ in range(3)]
    assert order == [high, low, later]


async def test_limits_of_a_type_tell_its_tasks_from_others_in_the_queue(store: Database) -> None:
    await task_types.announce(store, [TaskType(name="echo"), TaskType(name="other")])
    await store.fetch("UPDATE task_types SET limits = '{\"concurrency\": 1}' WHERE name = 'echo'")
    await submission.submit(store, [new_task(), new_task(type="other")])
    async with store.repeatable() as transaction:
        due = await outbox.take_due(transaction, {"default": 100}, 100)
        (kept,) = await admissions.hold(transaction, due)
    assert kept == due[0].task_id
    found = await admissions.limited(store)
    assert (found.queues, found.types, found.under_way) == ({}, {"echo": Limits(concurrency=1)}, True)
    assert await admissions.names(store) == (frozenset(), {"echo"})


async def test_limits_that_cannot_be_read_are_told_of_once_and_bound_nothing(store: Database) -> None:
    await store.fetch('UPDATE queues SET limits = \'{"concurrency": "many"}\'')
    with captured() as logged:
        for _ in range(2):
            assert (await admissions.limited(store)).queues == {"default": Limits()}
    assert [line["event"] for line in logged] == ["limits.unreadable"]


async def test_limits_are_read_as_they_are_written(store: Database) -> None:
    limits = Limits(concurrency=4, rate="10/s", burst=20, per_key=PerKey("/a", concurrency=1, weights={"x": 3}))
    await limited(
        store,
        {
            "concurrency": 4,
            "rate": "10/s",
            "burst": 20,
            "per_key": {"key": "/a", "concurrency": 1, "weights": {"x": 3}},
        },
    )
    assert (await admissions.limited(store)).queues == {"default": limits}


async def test_rates_are_stored_until_they_are_full(store: Database) -> None:
    a, b = Bound("queue", "default", ""), Bound("queue_key", "default", "a")
    await admissions.fill(store, {a: (Bucket(2.5, 1), 60.0), b: (Bucket(0.0, 0), -1.0)})
    found = await admissions.buckets(store, [a, b, Bound("type", "x", "")])
    assert {bound: each[:2] for bound, each in found.items()} == {a: (2.5, 1), b: (0.0, 0)}
    assert await admissions.prune_buckets(store, limit=10) == 1
    assert list(await admissions.buckets(store, [a, b])) == [a]


async def test_what_was_never_confirmed_is_found_again(store: Database) -> None:
    await limited(store)
    ids = await held(store, "a", "b")
    await let_through(store)
    await admissions.confirm(store, ids[:1])

    async def late(empty: list[str]) -> list[int]:
        found = await admissions.unstarted(store, ["default"], empty, older_than_seconds=-1.0, limit=10)
        return sorted(each.task_id for each in found)

    assert await late([]) == ids[1:]
    assert await late(["default"]) == ids
    assert await admissions.unstarted(store, ["default"], ["default"], older_than_seconds=60.0, limit=10) == []
