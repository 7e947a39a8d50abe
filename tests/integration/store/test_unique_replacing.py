"""What waits may get other contents: they are in it, or in a task of their own, and never start early."""

import asyncio
import json
from typing import Any

from bobrai.domain.message import Hint
from bobrai.domain.task import OutcomeKind
from bobrai.store import attempts, tasks
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import Database
from tests.integration.store.alike import alike, finished, one, submit
from tests.integration.store.builders import (
    blocked,
    claimed,
    outbox_rows,
    relayed,
    status,
    worker,
)
from tests.support.eventually import eventually


async def test_what_waits_gets_what_the_latest_says(patient: PatientDatabase, store: Database) -> None:
    first, _ = await one(patient, queue="default", client_id="key:a", delay_seconds=60.0)
    given: dict[str, Any] = {
        "payload": '{"n":  2}', "priority": 7, "max_attempts": 9, "timeout_seconds": 1.5, "delay_seconds": 90.0,
        "deadline_seconds": 500.0, "expires_seconds": 400.0, "request_id": "r2", "trace_context": "t2",
        "queue": "other", "client_id": "key:b",
    }  # fmt: skip
    assert await one(patient, replace=True, **given) == (first, True)
    (row,) = await store.fetch("SELECT *, extract(epoch FROM run_at - updated_at)::float8 AS wait FROM tasks")
    assert (row["payload"], row["priority"], row["max_attempts"], row["attempt"]) == ('{"n":  2}', 7, 9, 0)
    assert (row["timeout_seconds"], row["wait"], row["request_id"], row["trace_context"]) == (1.5, 90.0, "r2", "t2")
    assert (row["deadline_at"] - row["run_at"]).total_seconds() == 410.0
    assert (row["expires_at"] - row["run_at"]).total_seconds() == 310.0
    assert (row["queue"], row["client_id"]) == ("default", "key:a")
    (due,) = await outbox_rows(store)
    assert (due["attempt"], due["priority"], due["due_at"], due["queue"]) == (0, 7, row["run_at"], "default")


async def test_keeping_changes_nothing(patient: PatientDatabase, store: Database) -> None:
    await one(patient)
    before = await store.fetch("SELECT * FROM tasks")
    assert (await one(patient, payload='"y"', priority=7, delay_seconds=60.0))[1]
    assert await store.fetch("SELECT * FROM tasks") == before


async def test_what_runs_is_kept_as_it_is(patient: PatientDatabase, store: Database) -> None:
    first, _ = await one(patient)
    await claimed(store, await worker(store), first)
    before = await store.fetch("SELECT * FROM tasks")
    assert await one(patient, payload='"y"', replace=True) == (first, True)
    assert await store.fetch("SELECT * FROM tasks") == before


async def test_what_waits_between_attempts_is_replaced_and_has_them_all_again(
    patient: PatientDatabase, store: Database
) -> None:
    first, _ = await one(patient)
    await finished(store, first, OutcomeKind.RETRY)
    assert await one(patient, payload='"y"', replace=True, max_attempts=2) == (first, True)
    (row,) = await store.fetch("SELECT * FROM tasks")
    assert (row["payload"], row["attempt"], row["attempts_before"], row["max_attempts"]) == ('"y"', 1, 1, 3)
    assert (row["started_at"], len(json.loads(row["errors"]))) == (None, 1)
    claim = await claimed(store, await worker(store), first)
    assert (claim.payload, claim.failures) == ('"y"', 0)


async def test_a_hint_that_is_out_starts_nothing_before_its_new_time(patient: PatientDatabase, store: Database) -> None:
    first, _ = await one(patient)
    (hint,) = await relayed(store)
    assert await one(patient, payload='"y"', replace=True, delay_seconds=60.0) == (first, True)
    assert await attempts.claim(store, await worker(store), [Hint(first, hint.attempt)]) == []
    (due,) = await outbox_rows(store)
    assert (due["task_id"], due["due"]) == (first, False)
    await store.fetch("UPDATE outbox SET due_at = now()")
    (again,) = await relayed(store)
    (claim,) = await attempts.claim(store, await worker(store), [Hint(first, again.attempt)])
    assert (claim.payload, claim.failures) == ('"y"', 0)


async def test_a_hint_that_is_out_starts_the_latest_contents_when_they_are_due(
    patient: PatientDatabase, store: Database
) -> None:
    first, _ = await one(patient)
    (hint,) = await relayed(store)
    since = (await tasks.get(store, first))["run_at"]
    assert await one(patient, payload='"y"', replace=True) == (first, True)
    assert await outbox_rows(store) == []
    assert (await tasks.get(store, first))["run_at"] == since
    (claim,) = await attempts.claim(store, await worker(store), [Hint(first, hint.attempt)])
    assert claim.payload == '"y"'


async def test_a_delay_that_is_put_off_again_and_again_counts_as_no_start(
    patient: PatientDatabase, store: Database
) -> None:
    first, _ = await one(patient, delay_seconds=60.0)
    for _ in range(5):
        await one(patient, replace=True, delay_seconds=60.0)
    assert await status(store, first) == ("pending", 0)


async def test_a_replacement_and_a_claim_at_once_leave_no_contents_behind(
    patient: PatientDatabase, store: Database
) -> None:
    """Either the claim has the new contents, or they are a task of their own: none are lost."""
    me = await worker(store)
    for turn in range(30):
        rule: dict[str, Any] = {"value": turn, "while_": "waiting", "replace": True}
        first, _ = await one(patient, **rule)
        (claims, (second, duplicate)) = await asyncio.gather(
            attempts.claim(store, me, [Hint(first, 0)]), one(patient, payload='"new"', **rule)
        )
        assert duplicate == (second == first)
        assert [claim.payload for claim in claims] == (['"new"'] if duplicate else ['"x"'])
        assert (await tasks.get(store, second))["payload"] == '"new"'


async def test_a_replacement_waits_for_whoever_holds_the_task(patient: PatientDatabase, store: Database) -> None:
    first, _ = await one(patient)
    async with store.transaction() as other:
        await other.fetch("SELECT FROM tasks WHERE id = $1 FOR UPDATE", first)
        replacing = asyncio.create_task(one(patient, payload='"new"', replace=True))
        await eventually(lambda: blocked(store))
        # It holds nothing meanwhile: others with the same key go on.
        assert await one(patient) == (first, True)
    assert await replacing == (first, True)
    assert (await tasks.get(store, first))["payload"] == '"new"'


async def test_of_alike_items_the_first_makes_the_task_and_the_last_says_what_is_in_it(
    patient: PatientDatabase, store: Database
) -> None:
    stored = await submit(
        patient,
        alike(payload='"a"', queue="one"), alike(payload='"b"', queue="two", replace=True), alike(payload='"c"'),
    )  # fmt: skip
    assert (len({*stored.ids}), list(stored.duplicates)) == (1, [1, 2])
    (row,) = await store.fetch("SELECT payload, queue FROM tasks")
    assert (row["payload"], row["queue"]) == ('"b"', "one")
