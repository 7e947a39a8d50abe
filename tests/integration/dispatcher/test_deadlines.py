"""What waits past its deadline fails, and nothing else does."""

import json
from collections.abc import Callable

import pytest

from bobrai.dispatcher.deadlines import Deadlines
from bobrai.domain.errors import DatabaseUnavailable, StoreRejected
from bobrai.domain.message import Hint
from bobrai.domain.task import OutcomeKind
from bobrai.settings import Settings
from bobrai.store import attempts, tasks
from bobrai.store.pool import Database
from bobrai.telemetry.logs import captured
from tests.integration.store.builders import claimed, outbox_rows, outcome, status, submitted, submitted_one, worker
from tests.support.authors import SOMEBODY
from tests.support.refusing import allow, refuse

MakeSettings = Callable[..., Settings]


async def pass_deadline(store: Database, *task_ids: int) -> None:
    """Let the time of these tasks be over."""
    await store.fetch("UPDATE tasks SET deadline_at = now() - interval '1 s' WHERE id = ANY($1)", list(task_ids))


async def test_what_waits_past_its_deadline_fails(settings_with: MakeSettings, store: Database) -> None:
    late, delayed, timely, without = [
        await submitted_one(store, **fields)
        for fields in ({"deadline_seconds": 60.0}, {"delay_seconds": 3600.0}, {"deadline_seconds": 60.0}, {})
    ]
    await pass_deadline(store, late, delayed)
    with captured() as lines:
        await Deadlines(settings_with(), store).run_once()
    assert {line["task_id"] for line in lines if line["event"] == "task.overdue"} == {late, delayed}
    for task_id in (late, delayed):
        row = await tasks.get(store, task_id)
        (error,) = json.loads(row["errors"])
        assert (row["status"], row["attempt"], row["finished_at"] is None) == ("failed", 0, False)
        assert (error["reason"], error["attempt"], bool(error["at"])) == ("deadline", 0, True)
    assert [row["task_id"] for row in await outbox_rows(store)] == [timely, without]


async def test_no_attempt_starts_after_the_deadline(settings_with: MakeSettings, store: Database) -> None:
    me, task_id = await worker(store), await submitted_one(store, deadline_seconds=60.0)
    assert await attempts.end(store, me, [outcome(await claimed(store, me, task_id), OutcomeKind.RETRY)])
    await pass_deadline(store, task_id)
    assert await attempts.claim(store, me, [Hint(task_id, 1)]) == []
    await Deadlines(settings_with(), store).run_once()
    row = await tasks.get(store, task_id)
    assert [error["reason"] for error in json.loads(row["errors"])] == ["error", "deadline"]
    assert (row["status"], row["attempt"]) == ("failed", 1)


async def test_what_runs_is_left_to_its_worker_which_knows_what_is_left(
    settings_with: MakeSettings, store: Database
) -> None:
    me = await worker(store)
    short, long = [await submitted_one(store, deadline_seconds=each) for each in (60.0, 6000.0)]
    bounded, free = [(await claimed(store, me, each)).after(0.0) for each in (short, long)]
    assert (bounded.ends_with_task, free.ends_with_task, free.timeout_seconds) == (True, False, 300.0)
    assert 50.0 < bounded.timeout_seconds <= 60.0
    (again,) = await attempts.claimed(store, me, [Hint(short, 0)])
    assert again.after(0.0).ends_with_task
    await pass_deadline(store, short, long)
    await Deadlines(settings_with(), store).run_once()
    assert [await status(store, each) for each in (short, long)] == [("processing", 1)] * 2


async def test_a_replay_has_no_deadline(settings_with: MakeSettings, store: Database) -> None:
    task_id = await submitted_one(store, deadline_seconds=60.0)
    await pass_deadline(store, task_id)
    await Deadlines(settings_with(), store).run_once()
    await tasks.replay(store, task_id, by=SOMEBODY)
    await Deadlines(settings_with(), store).run_once()
    assert await status(store, task_id) == ("pending", 0)
    assert (await claimed(store, await worker(store), task_id)).timeout_seconds == 300.0


@pytest.mark.parametrize("sqlstate", ["23514", "P0001"])
async def test_a_row_that_cannot_be_written_holds_up_no_other(
    settings_with: MakeSettings, store: Database, sqlstate: str
) -> None:
    ids = await submitted(store, 5, deadline_seconds=60.0)
    await pass_deadline(store, *ids)
    await refuse(store, sqlstate, f"NEW.id = {ids[2]}")
    with pytest.raises((StoreRejected, DatabaseUnavailable)):
        await Deadlines(settings_with(), store).run_once()
    assert [(await status(store, each))[0] for each in ids] == ["failed", "failed", "pending", "failed", "failed"]
    await allow(store)
    await Deadlines(settings_with(), store).run_once()
    assert (await status(store, ids[2]))[0] == "failed"
