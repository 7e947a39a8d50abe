"""Tasks as their clients see them: read, listed, cancelled, replayed; and pruned after their retention.

In: ids and filters from the API. Out: records, whose JSON columns are text that goes to the client as it is.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from bobrai.domain import limits
from bobrai.domain.access import Principal
from bobrai.domain.audit import Action, Author
from bobrai.domain.errors import DatabaseUnavailable, TaskNotFound, TransitionRefused
from bobrai.domain.task import TaskStatus
from bobrai.store import audit
from bobrai.store.pool import ROUNDS, Executor, Record, Transactional, column
from bobrai.store.queries import statement

_BY_ID = statement("task_by_id")
_READ = statement("read_tasks")
_FINAL_OF = statement("tasks_by_ids")
_LIST = statement("list_tasks")
_EXPLAIN = statement("explain_task")
_CANCEL = statement("cancel")
_WAITING_OF = statement("waiting_of")
_REPLAY = statement("replay")
_OVERDUE = statement("overdue")
_END_OVERDUE = statement("end_overdue")
_PRUNE = statement("prune_tasks")
_PRUNE_KEYS = statement("prune_idempotency_keys")

_COUNT_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks to list; None means any."""

    status: TaskStatus | None = None
    type: str | None = None
    queue: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    parent_id: int | None = None
    seen_by: Principal | None = None  # only what is inside of this principal's grant


async def get(database: Executor, task_id: int) -> Record:
    """Return a task's row; raises TaskNotFound."""
    rows = await database.fetch(_BY_ID, task_id)
    if not rows:
        raise TaskNotFound(task_id)
    return rows[0]


async def read(database: Executor, task_ids: Collection[int]) -> dict[int, Record]:
    """Return the rows of those of many tasks that exist, by id."""
    return {row["id"]: row for row in await database.fetch(_READ, list(task_ids))}


async def explain(database: Executor, task_id: int, *, most_ahead: int) -> Record:
    """Return a task's row with what decides when it starts; raises TaskNotFound.

    ``ahead`` counts what is due before it in its queue, up to ``most_ahead``; None: it has no hint that is due.
    """
    rows = await database.fetch(_EXPLAIN, task_id, most_ahead)
    if not rows:
        raise TaskNotFound(task_id)
    return rows[0]


async def final_of(database: Executor, task_ids: Collection[int]) -> set[int]:
    """Return those of many tasks that are final."""
    return {row[0] for row in await database.fetch(_FINAL_OF, list(task_ids))}


async def page(database: Transactional, wanted: TaskFilter, *, before_id: int | None, limit: int) -> list[Record]:
    """Return up to ``limit`` tasks with ids below ``before_id``, newest first."""
    async with database.transaction() as connection:
        # A plan made for all filters at once could use none of the partial indexes.
        await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        return await connection.fetch(
            _LIST,
            before_id,
            wanted.status,
            wanted.type,
            wanted.queue,
            wanted.created_after,
            wanted.created_before,
            *_inside(wanted.seen_by),
            wanted.parent_id,
            limit,
        )


def _inside(principal: Principal | None) -> tuple[list[str] | None, list[str] | None, str | None]:
    """Return patterns of queues and types as LIKE takes them, and whose tasks; None: any."""
    if principal is None:
        return None, None, None
    grant = principal.grant
    return _like(grant.queues), _like(grant.types), principal.id if grant.own_tasks else None


def _like(patterns: Sequence[str]) -> list[str] | None:
    return [each.replace("_", r"\_").replace("*", "%") for each in patterns] or None


async def cancel(database: Executor, task_id: int, *, by: Author) -> TaskStatus:
    """Cancel a pending task at once, or ask the worker of a running one to stop; wished again, nothing changes.

    Returns the status before. Raises TaskNotFound, and TransitionRefused when the task ended otherwise.
    """
    for _ in range(ROUNDS):
        rows = await database.fetch(_CANCEL, task_id, *by)
        if rows:
            audit.tell(rows[0]["audit_id"], Action.TASK_CANCEL, f"task:{task_id}", by)
            return TaskStatus(rows[0]["status_before"])
        row = await get(database, task_id)
        status = TaskStatus(row["status"])
        if status in {TaskStatus.DONE, TaskStatus.FAILED}:
            raise TransitionRefused(task_id, status, "cancelled")
        if status is TaskStatus.CANCELLED or row["cancel_requested"]:
            return status
        # It was replayed between the two statements.
    raise DatabaseUnavailable("a cancel changed nothing, again and again: a trigger on the table keeps it away")


async def waiting_of(database: Executor, bounds: Mapping[str, int]) -> dict[str, int]:
    """Return how many tasks wait of each principal, by its id; one more than its bound stands for all above."""
    rows = await database.fetch(_WAITING_OF, list(bounds), list(bounds.values()), timeout=_COUNT_TIMEOUT_SECONDS)
    return {row["client_id"]: row["waiting"] for row in rows}


async def replay(database: Executor, task_id: int, *, by: Author) -> None:
    """Give a final task a fresh set of attempts; raises TaskNotFound, and TransitionRefused when it is not final."""
    rows = await database.fetch(_REPLAY, task_id, *by)
    if not rows:
        raise TaskNotFound(task_id)
    status = rows[0]["status_before"]
    if status in {TaskStatus.PENDING, TaskStatus.PROCESSING}:
        raise TransitionRefused(task_id, status, "replayed")
    audit.tell(rows[0]["audit_id"], Action.TASK_REPLAY, f"task:{task_id}", by)


async def overdue(database: Executor, *, limit: int) -> list[int]:
    """Return waiting tasks that may not start any more, for their deadline or their expiry, at most ``limit``."""
    return column(await database.fetch(_OVERDUE, limit), "id")


async def end_overdue(database: Executor, task_ids: Sequence[int]) -> list[Record]:
    """End those of these tasks that may not start any more.

    Returns id, attempt, status (failed by the deadline, cancelled by the expiry), type, queue, request_id of each.
    """
    return await database.fetch(_END_OVERDUE, task_ids, limits.MAX_ERRORS_KEPT)


async def prune(database: Executor, *, retention_seconds: float, limit: int) -> int:
    """Delete tasks that finished before the retention time, at most ``limit``; returns how many."""
    return len(await database.fetch(_PRUNE, retention_seconds, limit))


async def prune_idempotency_keys(database: Executor, *, limit: int) -> int:
    """Delete expired idempotency keys, at most ``limit``; returns how many."""
    return len(await database.fetch(_PRUNE_KEYS, limit))
