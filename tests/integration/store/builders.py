"""Tasks, workers and hints for the proof of the store, with defaults that a test only names when they matter."""

from typing import Any

from bobrai.domain.message import Hint
from bobrai.domain.retry import Retry
from bobrai.domain.task import AttemptError, Claim, NewTask, Outcome, OutcomeKind
from bobrai.store import attempts, outbox, queues, submission, tasks, workers
from bobrai.store.outbox import DueHint
from bobrai.store.pool import Database, Record

ERROR = AttemptError(type="ValueError", message="no", traceback="Traceback …")


def new_task(*, max_attempts: int = 3, **fields: Any) -> NewTask:
    """A submission."""
    return NewTask(**{"type": "echo", "payload": '"x"', "retry": Retry(max_attempts=max_attempts), **fields})


async def submitted(store: Database, count: int = 1, **fields: Any) -> list[int]:
    """Submit alike tasks; their queue exists afterwards."""
    await queues.ensure(store, [fields.get("queue", "default")])
    return await submission.submit(store, [new_task(**fields)] * count)


async def submitted_one(store: Database, **fields: Any) -> int:
    """Submit one task."""
    return (await submitted(store, **fields))[0]


async def worker(store: Database, *, lease_seconds: float = 600.0, queues: tuple[str, ...] = ("default",)) -> int:
    """Register a worker."""
    return await workers.register(store, queues=queues, host="test", concurrency=50, lease_seconds=lease_seconds)


async def claimed(store: Database, worker_id: int, task_id: int) -> Claim:
    """Claim the attempt that waits now."""
    row = await tasks.get(store, task_id)
    (claim,) = await attempts.claim(store, worker_id, [Hint(task_id, row["attempt"])])
    return claim


async def relayed(store: Database, room: int = 10_000, queue: str = "default") -> list[DueHint]:
    """Take what is due, as the relay does, and commit."""
    async with store.transaction() as transaction:
        return await outbox.take_due(transaction, {queue: room}, room)


async def expired(store: Database, worker_id: int) -> None:
    """End a worker's lease and let the reaper find it."""
    await store.fetch("UPDATE workers SET expires_at = now() - interval '1 s' WHERE id = $1", worker_id)
    assert worker_id in {row["id"] for row in await workers.expire(store, restart_grace_seconds=0.0)}


def outcome(claim: Claim, kind: OutcomeKind, **fields: Any) -> Outcome:
    """How an attempt ended."""
    if kind is OutcomeKind.DONE:
        fields.setdefault("result", '"ok"')
    if kind in {OutcomeKind.FAILED, OutcomeKind.RETRY, OutcomeKind.SNOOZE}:
        fields.setdefault("error", ERROR)
    return Outcome(claim.task_id, claim.attempt, kind, **fields)


async def status(store: Database, task_id: int) -> tuple[str, int]:
    """Return a task's status and attempt."""
    row = await tasks.get(store, task_id)
    return row["status"], row["attempt"]


async def outbox_rows(store: Database) -> list[Record]:
    """Return the whole outbox, by task."""
    return await store.fetch(
        "SELECT task_id, attempt, queue, priority, due_at, due_at <= now() AS due FROM outbox ORDER BY task_id"
    )


async def blocked(store: Database) -> bool:
    """Return whether a statement in this database waits for a lock."""
    rows = await store.fetch(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(rows)
