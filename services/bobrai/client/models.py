"""What the API's answers say, as typed values; what a newer server says besides is left out.

In: JSON. Out: structs, with the names that docs/api.md has. A member that the credential may not see is None.
"""

from datetime import datetime
from typing import Any

import msgspec


class Answer(msgspec.Struct, kw_only=True):
    """The root of all."""


class Fault(Answer, kw_only=True):
    """One place of a request that is wrong: a JSON Pointer into the body, ``/query/name`` or ``/path/name``."""

    pointer: str
    detail: str


class Problem(Answer, kw_only=True):
    """Why a request was refused (RFC 9457)."""

    type: str
    title: str = ""
    status: int = 0
    detail: str = ""
    request_id: str = ""
    scope: str = ""
    reason: str = ""
    errors: list[Fault] = []

    @property
    def kind(self) -> str:
        """Its type, without the prefix that all have."""
        return self.type.removeprefix("urn:bobrai:problem:")


class AttemptFailure(Answer, kw_only=True):
    """How one attempt failed."""

    attempt: int
    type: str
    reason: str
    message: str = ""
    traceback: str = ""
    at: datetime | None = None


class Task(Answer, kw_only=True):
    """A task as it was when it was read."""

    id: int
    type: str
    queue: str
    status: str
    payload: Any = None
    result: Any = None
    error: str | None = None
    errors: list[AttemptFailure] = []
    priority: int = 0
    attempt: int = 0
    max_attempts: int = 0
    losses: int = 0
    snoozes: int = 0
    progress: Any = None
    run_at: datetime
    deadline_at: datetime | None = None
    expires_at: datetime | None = None
    parent_id: int | None = None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.finished_at is not None


class Shown(Answer, kw_only=True):
    """A task's result as it was sent; not set: the credential may not see it."""

    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Explanation(Answer, kw_only=True):
    """Why a task is where it is; ``facts`` differ from cause to cause."""

    task_id: int
    status: str
    cause: str
    summary: str
    earliest_start_at: datetime | None = None
    facts: dict[str, Any] = {}


class TaskPage(Answer, kw_only=True):
    """Tasks, newest first."""

    tasks: list[Task]
    next_cursor: str | None = None


class Created(Answer, kw_only=True):
    """A task that was submitted."""

    task_id: int
    duplicate: bool = False
    warnings: list[str] = []


class BatchCreated(Answer, kw_only=True):
    """Tasks that were submitted together."""

    task_ids: list[int]
    duplicates: list[int] = []
    warnings: list[str] = []


class Backlog(Answer, kw_only=True):
    """Tasks that wait, as last measured."""

    due: int
    held: int
    delayed: int
    between_attempts: int


class PerKey(Answer, kw_only=True):
    """Bounds for the tasks of each value of a payload key."""

    key: str
    concurrency: int | None = None
    rate: str | None = None
    burst: int | None = None
    weights: dict[str, int] = {}


class Limits(Answer, kw_only=True):
    """Bounds for all tasks of a queue or a type; what is None is not bound."""

    concurrency: int | None = None
    rate: str | None = None
    burst: int | None = None
    per_key: PerKey | None = None


class Queue(Answer, kw_only=True):
    """A queue as last measured; figures are None before that, and where the credential does not reach all tasks."""

    name: str
    paused: bool
    max_backlog: int | None = None
    limits: Limits | None = None
    backlog: Backlog | None = None
    processing: int | None = None
    oldest_due_age_seconds: float | None = None
    workers: int = 0
    slots: int = 0
    measured_at: datetime | None = None


class QueueList(Answer, kw_only=True):
    """Every queue, by name."""

    queues: list[Queue]


class RetryPolicy(Answer, kw_only=True):
    """When a failed attempt is tried again."""

    max_attempts: int
    delay_seconds: float
    factor: float
    max_delay_seconds: float
    jitter: float
    retry_for_seconds: float | None = None


class UniqueRule(Answer, kw_only=True):
    """Of which tasks of a type there is one at a time."""

    key: str
    for_seconds: float | None = None
    while_: str = msgspec.field(name="while")
    on_conflict: str


class TaskType(Answer, kw_only=True):
    """A task type as a worker last announced it, and who has it now."""

    name: str
    description: str = ""
    queue: str | None = None
    payload_schema: Any = None
    result_schema: Any = None
    timeout_seconds: float
    deadline_seconds: float | None = None
    retry: RetryPolicy
    unique: UniqueRule | None = None
    limits: Limits | None = None
    declared_limits: Limits | None = None
    limits_set: bool = False
    runs_in: str | None = None
    memory_mb: int | None = None
    announced_at: datetime
    workers: int = 0
    workers_unknown: int = 0
    queue_workers: int | None = None


class TypeList(Answer, kw_only=True):
    """Every known type, by name."""

    types: list[TaskType]


class Worker(Answer, kw_only=True):
    """A living worker; ``host`` and ``running`` are None where the credential does not reach all tasks."""

    id: int
    host: str | None = None
    queues: list[str] = []
    types: list[str] | None = None
    concurrency: int = 0
    running: int | None = None
    started_at: datetime


class WorkerList(Answer, kw_only=True):
    """Every living worker, the oldest first."""

    workers: list[Worker]


class Key(Answer, kw_only=True):
    """An API key, without its secret."""

    id: str
    name: str
    scopes: list[str]
    queues: list[str] = []
    types: list[str] = []
    own_tasks: bool = False
    rate: str | None = None
    burst: int | None = None
    max_waiting: int | None = None
    created_at: datetime
    created_by: str = ""
    rotated_at: datetime | None = None
    previous_until: datetime | None = None
    expires_at: datetime | None = None
    expired: bool = False
    superseded: bool = False
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class NewKey(Key, kw_only=True):
    """An API key with its secret, which is told this once: ``key`` is what ``api_key=`` takes."""

    key: str

    def __repr__(self) -> str:
        """Show it without the secret."""
        return f"NewKey(id={self.id!r}, name={self.name!r}, key='…')"


class KeyList(Answer, kw_only=True):
    """Every key, the oldest first."""

    keys: list[Key]


class Change(Answer, kw_only=True):
    """A change that somebody has made."""

    id: int
    at: datetime
    actor: str
    actor_name: str = ""
    action: str
    target: str
    source: str = ""
    request_id: str = ""
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


class AuditPage(Answer, kw_only=True):
    """Changes, newest first."""

    entries: list[Change]
    next_cursor: str | None = None
