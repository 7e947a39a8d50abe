"""Limits that are declared and limits that people set: which are in force, and for how long."""

import asyncio
from typing import Any

import pytest

from bobrai.domain.limiting import Limits, PerKey
from bobrai.domain.task import TaskType
from bobrai.store import admissions, queues, task_types
from bobrai.store.pool import Database
from bobrai.store.queues import Wishes
from bobrai.store.task_types import Announced
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

WEEK = 7 * 86_400.0
DECLARED = Limits(concurrency=20, rate="10/s", burst=30, per_key=PerKey("/account", rate="2/m", weights={"acme": 3}))
NARROWER = Limits(concurrency=2)


async def announce(store: Database, limits: Limits | None, **said: Any) -> None:
    """A worker starts that has the type so."""
    await task_types.announce(store, [TaskType(name="charge", limits=limits, **said)])


async def known(store: Database) -> Announced:
    """The type as it is known now."""
    (found,) = await task_types.announced(store)
    return found


async def in_force(store: Database) -> Limits | None:
    """The limits that the dispatcher keeps."""
    return (await admissions.limited(store)).types.get("charge")


async def test_what_is_declared_is_in_force_until_it_is_declared_otherwise(store: Database) -> None:
    await announce(store, DECLARED, runs_in="process", memory_mb=128)
    assert await in_force(store) == DECLARED
    found = await known(store)
    assert (found.type.limits, found.limits_set) == (DECLARED, False)
    assert (found.type.runs_in, found.type.memory_mb) == ("process", 128)
    await announce(store, NARROWER)
    assert await in_force(store) == NARROWER
    found = await known(store)
    assert (found.type.runs_in, found.type.memory_mb) == (None, None)
    await announce(store, None)
    assert await in_force(store) is None
    assert (await known(store)).limits is None


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        (Limits(concurrency=1), '{"concurrency":1}'),
        (Limits(rate="10 / s"), '{"rate":"10/s"}'),
        (Limits(per_key=PerKey("/a")), '{"per_key":{"key":"/a"}}'),
        (Limits(), None),
    ],
)
async def test_rows_hold_what_is_said_and_nothing_else(store: Database, declared: Limits, text: str | None) -> None:
    await announce(store, declared)
    assert (await known(store)).limits == text


async def test_limits_that_a_person_has_set_outlast_every_announcement(store: Database) -> None:
    await announce(store, DECLARED)
    assert await task_types.set_limits(store, "charge", NARROWER, by=SOMEBODY)
    for declared in (DECLARED, None, Limits(concurrency=7)):
        await announce(store, declared)
        assert await in_force(store) == NARROWER
        found = await known(store)
        assert (found.type.limits, found.limits_set) == (declared, True)
    assert await task_types.set_limits(store, "charge", None, by=SOMEBODY)
    assert await in_force(store) == Limits(concurrency=7), "what was declared last"
    assert (await known(store)).limits_set is False


async def test_a_person_may_set_that_there_is_no_limit(store: Database) -> None:
    await announce(store, DECLARED)
    assert await task_types.set_limits(store, "charge", Limits(), by=SOMEBODY)
    await announce(store, DECLARED)
    assert await in_force(store) is None
    found = await known(store)
    assert (found.limits, found.limits_set, found.type.limits) == (None, True, DECLARED)


async def test_set_limits_end_with_their_type(store: Database) -> None:
    assert not await task_types.set_limits(store, "charge", NARROWER, by=SOMEBODY), "nobody has announced it"
    await announce(store, DECLARED)
    await task_types.set_limits(store, "charge", NARROWER, by=SOMEBODY)
    await store.fetch("UPDATE task_types SET seen_at = now() - interval '8 days'")
    assert await task_types.forget(store, retention_seconds=WEEK) == ["charge"]
    await announce(store, DECLARED)
    assert await in_force(store) == DECLARED


async def limit(store: Database, name: str, limits: Limits | None) -> bool:
    """Limit a queue that is there, and change nothing else."""
    return await queues.change(store, name, Wishes(limits=limits), by=SOMEBODY)


async def test_a_limited_queue_is_not_removed_for_being_idle(store: Database) -> None:
    await queues.ensure(store, ["limited", "free"])
    await limit(store, "limited", DECLARED)
    await limit(store, "free", Limits())
    await store.fetch("UPDATE queues SET used_at = now() - interval '8 days', created_at = now() - interval '8 days'")
    assert await queues.remove_idle(store, retention_seconds=WEEK) == ["free"]
    await limit(store, "limited", None)
    assert await queues.remove_idle(store, retention_seconds=WEEK) == ["limited"]


async def test_a_queue_that_comes_back_after_its_removal_has_no_limits(store: Database) -> None:
    await queues.ensure(store, ["media"])
    await limit(store, "media", DECLARED)
    assert (await admissions.limited(store)).queues == {"media": DECLARED}
    assert await queues.remove(store, "media", by=SOMEBODY) == (True, False, 0, 0)
    assert (await admissions.limited(store)).queues == {}
    await queues.ensure(store, ["media"])
    assert (await admissions.limited(store)).queues == {}


async def test_a_change_of_limits_wakes_the_dispatchers(store: Database, database: OwnDatabase) -> None:
    woken = 0

    def wake(*_: object) -> None:
        nonlocal woken
        woken += 1

    async def is_woken(times: int) -> bool:
        return woken == times

    await announce(store, DECLARED)
    await queues.ensure(store, ["media"])
    async with database.connect() as connection:
        await connection.add_listener("bobrai_outbox", wake)
        await limit(store, "media", NARROWER)
        await eventually(lambda: is_woken(1), message="by a queue's")
        await task_types.set_limits(store, "charge", NARROWER, by=SOMEBODY)
        await eventually(lambda: is_woken(2), message="by a type's")


async def test_changes_at_the_same_moment_tell_each_what_was_there_in_truth(store: Database) -> None:
    await announce(store, None)
    wishes = [Limits(concurrency=number) for number in range(1, 9)]
    await asyncio.gather(*(task_types.set_limits(store, "charge", wish, by=SOMEBODY) for wish in wishes))
    rows = await store.fetch(
        "SELECT before #>> '{limits,concurrency}' AS before, after #>> '{limits,concurrency}' AS after FROM audit"
    )
    by_before = {row["before"]: row["after"] for row in rows}
    reached, order = None, []
    while reached in by_before:
        reached = by_before.pop(reached)
        order.append(reached)
    assert sorted(order) == [str(number) for number in range(1, 9)], "they are one chain"
