"""The invariants that the schema keeps by itself: each illegal state is refused by the constraint that names it."""

import contextlib

import asyncpg
import pytest

from bobrai.domain.errors import TransitionRefused
from bobrai.domain.task import FINAL, TRANSITIONS, OutcomeKind, TaskStatus
from bobrai.store import attempts, tasks, workers
from bobrai.store.pool import Database
from tests.integration.store.builders import claimed, expired, outcome, status, submitted_one, worker
from tests.integration.store.history import History
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase

ROW = {
    "type": "'echo'",
    "queue": "'default'",
    "payload": "'1'",
    "max_attempts": "3",
    "retry": "'{}'",
    "timeout_seconds": "300",
}

ILLEGAL = [
    ({"status": "'running'"}, "tasks_status_known"),
    ({"status": "'done'"}, "tasks_final_has_finished_at"),
    ({"status": "'failed'"}, "tasks_final_has_finished_at"),
    ({"status": "'cancelled'"}, "tasks_final_has_finished_at"),
    ({"status": "'pending'", "finished_at": "now()"}, "tasks_final_has_finished_at"),
    ({"status": "'processing'", "worker_id": "1", "finished_at": "now()"}, "tasks_final_has_finished_at"),
    ({"status": "'processing'"}, "tasks_processing_has_worker"),
    ({"attempt": "4"}, "tasks_attempt_in_bounds"),
    ({"attempt": "-1"}, "tasks_attempt_in_bounds"),
    ({"attempt": "1", "attempts_before": "2"}, "tasks_attempt_in_bounds"),
    ({"attempts_before": "-1"}, "tasks_attempt_in_bounds"),
    ({"priority": "11"}, "tasks_priority_check"),
    ({"priority": "-1"}, "tasks_priority_check"),
]


async def test_each_illegal_row_is_refused_by_the_constraint_that_names_it(database: OwnDatabase) -> None:
    async with database.connect() as connection:
        for columns, constraint in ILLEGAL:
            row = {**ROW, **columns}
            with pytest.raises(asyncpg.CheckViolationError) as refused:
                await connection.execute(f"INSERT INTO tasks ({', '.join(row)}) VALUES ({', '.join(row.values())})")
            assert refused.value.constraint_name == constraint, columns


async def test_every_status_of_the_domain_has_a_legal_row(database: OwnDatabase) -> None:
    async with database.connect() as connection:
        for state in TaskStatus:
            row = {**ROW, "status": f"'{state}'", "worker_id": "1"}
            if state in FINAL:
                row["finished_at"] = "now()"
            await connection.execute(f"INSERT INTO tasks ({', '.join(row)}) VALUES ({', '.join(row.values())})")


async def test_an_outbox_row_is_one_per_task(database: OwnDatabase) -> None:
    insert = "INSERT INTO outbox (task_id, attempt, queue, priority, due_at) VALUES (1, 0, 'default', 0, now())"
    await database.execute(insert)
    with pytest.raises(asyncpg.UniqueViolationError):
        await database.execute(insert)


async def _to(store: Database, state: TaskStatus) -> tuple[int, int, int]:
    """Bring a new task into a status; returns its id, its worker and its attempt."""
    me, task_id = await worker(store), await submitted_one(store)
    claim = None if state is TaskStatus.PENDING else await claimed(store, me, task_id)
    if claim and state is TaskStatus.DONE:
        await attempts.complete(store, me, [outcome(claim, OutcomeKind.DONE)])
    elif claim and state in FINAL:
        await attempts.end(store, me, [outcome(claim, OutcomeKind(state))])
    assert (await status(store, task_id))[0] == state
    return task_id, me, claim.attempt if claim else 0


@pytest.mark.parametrize("state", list(TaskStatus))
async def test_statements_leave_a_status_only_as_the_table_says(
    store: Database, history: History, state: TaskStatus
) -> None:
    """Every statement that could change a status is tried on each; together they reach all that is allowed."""
    wishes = ["claim", *OutcomeKind, "cancel", "replay", "lose", "wait too long", "expire"]
    reached = set()
    for wish in wishes:
        task_id, me, attempt = await _to(store, state)
        before = len(await history.changes())
        with contextlib.suppress(TransitionRefused):
            await _try(store, wish, task_id, me, attempt)
        reached |= {TaskStatus(change.new) for change in (await history.changes())[before:] if change.old == state}
    assert reached == TRANSITIONS[state]


async def _try(store: Database, wish: str, task_id: int, me: int, attempt: int) -> None:
    if wish == "claim":
        await attempts.claim(store, me, [attempts.Hint(task_id, attempt)])
    elif wish == "cancel":
        await tasks.cancel(store, task_id, by=SOMEBODY)
    elif wish == "replay":
        await tasks.replay(store, task_id, by=SOMEBODY)
    elif wish in {"wait too long", "expire"}:
        moment = "expires_at" if wish == "expire" else "deadline_at"
        await store.fetch(f"UPDATE tasks SET {moment} = now() WHERE id = $1", task_id)
        await tasks.end_overdue(store, [task_id])
    elif wish == "lose":
        await expired(store, me)
        await workers.take_back(store)
    else:
        claim = attempts.Outcome(task_id, attempt, OutcomeKind(wish))
        if wish == OutcomeKind.DONE:
            await attempts.complete(store, me, [outcome(claim, OutcomeKind.DONE)])
        else:
            await attempts.end(store, me, [outcome(claim, OutcomeKind(wish))])
