"""Of tasks that are alike there is one at a time, whoever submits them at once, and whatever becomes of the first."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from bobrai.domain.task import OutcomeKind
from bobrai.store import tasks, unique
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import Database
from tests.integration.store.alike import alike, count, finished, one, submit
from tests.integration.store.builders import (
    claimed,
    new_task,
    outbox_rows,
    status,
    submitted_one,
    worker,
)
from tests.integration.store.conftest import opened
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase


@asynccontextmanager
async def replicas(*urls: str) -> AsyncIterator[list[PatientDatabase]]:
    """Databases of so many API processes."""
    async with AsyncExitStack() as stack:
        found = []
        for url in urls:
            store = await opened(url)
            stack.push_async_callback(store.close)
            found.append(PatientDatabase(store, 5.0))
        yield found


@pytest.mark.parametrize("there", [False, True], ids=["none was there", "the first one is past"])
async def test_a_hundred_at_once_make_one_task(database: OwnDatabase, store: Database, there: bool) -> None:
    async with replicas(database.url, database.pooled_url) as patient:
        if there:
            await finished(store, (await one(patient[0]))[0])
        found = await asyncio.gather(*(one(patient[n % 2]) for n in range(100)))
    ids = {task_id for task_id, _ in found}
    assert len(ids) == 1
    assert sorted(duplicate for _, duplicate in found) == [False] + [True] * 99
    assert await count(store) == 1 + there
    assert [row["task_id"] for row in await outbox_rows(store) if row["task_id"] in ids] == [*ids]


async def test_requests_of_one_flush_are_answered_each_for_itself(patient: PatientDatabase, store: Database) -> None:
    there, _ = await one(patient, value=0)
    answers = await unique.submit(patient, [[alike(1), new_task(), alike(0)], [alike(2), alike(1)], [new_task()]])
    (first, plain, known), (second, again), (last,) = (answer.ids for answer in answers)
    assert (known, again) == (there, first)
    assert len({first, plain, second, last, there}) == 5
    assert [list(answer.duplicates) for answer in answers] == [[2], [1], []]
    assert await count(store) == 5
    assert {row["task_id"] for row in await outbox_rows(store)} == {first, plain, second, last, there}


async def test_tasks_are_stored_as_plain_ones_are(patient: PatientDatabase, store: Database) -> None:
    fields: dict[str, Any] = {
        "payload": '{"b":1,  "a":[1.50]}', "priority": 7, "max_attempts": 9, "timeout_seconds": 1.5,
        "delay_seconds": 60.0, "deadline_seconds": 90.0, "expires_seconds": 80.0,
        "request_id": "r", "trace_context": "t", "client_id": "key:a",
    }  # fmt: skip
    plain = await submitted_one(store, **fields)
    mine, _ = await one(patient, **fields)
    moments = {"id", "created_at", "updated_at", "run_at", "deadline_at", "expires_at"}
    rows = [dict(row) for row in await store.fetch("SELECT * FROM tasks ORDER BY id")]
    kept = [{name: value for name, value in row.items() if name not in moments} for row in rows]
    assert (rows[0]["id"], rows[1]["id"]) == (plain, mine)
    assert kept[0] == kept[1]
    for name in ("run_at", "deadline_at", "expires_at"):
        assert rows[0][name] - rows[0]["created_at"] == rows[1][name] - rows[1]["created_at"]


@pytest.mark.parametrize("kind", [OutcomeKind.DONE, OutcomeKind.FAILED, OutcomeKind.CANCELLED])
@pytest.mark.parametrize("while_", ["waiting", "unfinished", "always"])
async def test_what_has_ended_holds_only_always(
    patient: PatientDatabase, store: Database, while_: str, kind: OutcomeKind
) -> None:
    rule: dict[str, Any] = {"while_": while_, "for_seconds": 60.0}
    first, _ = await one(patient, **rule)
    await finished(store, first, kind)
    second, duplicate = await one(patient, **rule)
    assert duplicate == (second == first) == (while_ == "always")
    assert await one(patient, **rule) == (second, True)


async def test_what_has_started_holds_no_longer_when_it_held_while_it_waited(
    patient: PatientDatabase, store: Database
) -> None:
    waiting, unfinished = (await one(patient, value=0, while_="waiting"))[0], (await one(patient, value=1))[0]
    for task_id in (waiting, unfinished):
        await finished(store, task_id, OutcomeKind.RETRY)  # and waits again
        assert await status(store, task_id) == ("pending", 1)
    assert await one(patient, value=1) == (unfinished, True)
    other, duplicate = await one(patient, value=0, while_="waiting")
    assert (other == waiting, duplicate) == (False, False)


async def test_its_time_ends_a_hold_whatever_else_bounds_it(patient: PatientDatabase, store: Database) -> None:
    for value, while_ in enumerate(("waiting", "unfinished", "always")):
        first, _ = await one(patient, value=value, while_=while_, for_seconds=60.0)
        assert await one(patient, value=value, while_=while_, for_seconds=60.0) == (first, True)
        await store.fetch("UPDATE unique_tasks SET expires_at = now() WHERE task_id = $1", first)
        second, duplicate = await one(patient, value=value, while_=while_, for_seconds=60.0)
        assert (second != first, duplicate) == (True, False)


async def test_a_task_that_is_pruned_holds_only_always(patient: PatientDatabase, store: Database) -> None:
    gone = {
        while_: (await one(patient, value=while_, while_=while_, for_seconds=60.0))[0]
        for while_ in ("unfinished", "always")
    }
    await store.fetch("DELETE FROM outbox; ")
    await store.fetch("DELETE FROM tasks")
    assert (await one(patient, value="unfinished", for_seconds=60.0))[1] is False
    assert await one(patient, value="always", while_="always", for_seconds=60.0) == (gone["always"], True)


async def test_a_replayed_task_counts_as_long_as_none_took_its_place(patient: PatientDatabase, store: Database) -> None:
    first, _ = await one(patient)
    await finished(store, first)
    await tasks.replay(store, first, by=SOMEBODY)
    assert await one(patient) == (first, True)
    await finished(store, first)
    second, _ = await one(patient)
    await tasks.replay(store, first, by=SOMEBODY)
    assert await one(patient) == (second, True)
    assert [await status(store, each) for each in (first, second)] == [("pending", 2), ("pending", 0)]


async def test_batches_that_cross_each_other_never_wait_in_a_circle(database: OwnDatabase) -> None:
    async with replicas(database.url, database.pooled_url) as (first, second):
        for turn in range(20):
            items = [alike((turn, n)) for n in range(50)]
            one_way, other = await asyncio.gather(submit(first, *items), submit(second, *items[::-1]))
            assert list(one_way.ids) == list(other.ids)[::-1]
            assert len(one_way.duplicates) + len(other.duplicates) == 50


async def looked_at(store: Database, task_ids: Iterable[int] = ()) -> list[int]:
    """Let an hour pass, prune, and return whose rows are left."""
    await store.fetch("UPDATE unique_tasks SET check_at = now()")
    while await unique.prune(store, limit=2) == 2:
        pass
    return [row["task_id"] for row in await store.fetch("SELECT task_id FROM unique_tasks ORDER BY task_id")]


async def test_rows_go_when_they_hold_no_more(patient: PatientDatabase, store: Database) -> None:
    kept = [(await one(patient, value=n, while_=while_, for_seconds=60.0))[0] for n, while_ in enumerate(
        ("waiting", "unfinished", "always", "unfinished", "always"))]  # fmt: skip
    await finished(store, kept[3], OutcomeKind.RETRY)
    await finished(store, kept[4])
    gone = [(await one(patient, value=10 + n, while_=while_, for_seconds=60.0))[0] for n, while_ in enumerate(
        ("waiting", "unfinished", "unfinished", "always"))]  # fmt: skip
    await claimed(store, await worker(store), gone[0])
    await finished(store, gone[1])
    await store.fetch("DELETE FROM tasks WHERE id = $1", gone[2])
    await store.fetch("UPDATE unique_tasks SET expires_at = now() WHERE task_id = $1", gone[3])
    assert await looked_at(store) == kept
    assert await unique.prune(store, limit=100) == 0  # they are looked at again in an hour


async def test_a_row_is_pruned_or_taken_over_and_never_both(patient: PatientDatabase, store: Database) -> None:
    for turn in range(20):
        first, _ = await one(patient, value=turn)
        await finished(store, first)
        await store.fetch("UPDATE unique_tasks SET check_at = now()")
        _, *found = await asyncio.gather(unique.prune(store, limit=100), *(one(patient, value=turn) for _ in range(5)))
        assert len({task_id for task_id, _ in found}) == 1
        assert await one(patient, value=turn) == (found[0][0], True)
