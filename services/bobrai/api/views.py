"""What clients get back: rows as JSON. The OpenAPI document is made from these shapes.

In: records of the store. Out: bytes. JSON columns (payload, result, progress, errors) are spliced in as they are
stored, never decoded and encoded again.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw

from bobrai.domain.task import TaskStatus
from bobrai.store.pool import Record
from bobrai.store.task_types import Announced
from bobrai.store.workers import LiveWorker

_NULL = Raw(b"null")
_encoder = msgspec.json.Encoder()

Moment = Annotated[datetime, Meta(tz=True)]  # the offset makes it a date-time in the document


Warnings = Annotated[
    list[str], Meta(description="Why the tasks may have to wait: no living worker can run them now. Otherwise absent.")
]


class TaskCreated(msgspec.Struct, omit_defaults=True):
    """The task is committed."""

    task_id: int
    warnings: Warnings | msgspec.UnsetType = msgspec.UNSET


class BatchCreated(msgspec.Struct, omit_defaults=True):
    """All tasks are committed."""

    task_ids: Annotated[list[int], Meta(description="In the order of the request.")]
    warnings: Warnings | msgspec.UnsetType = msgspec.UNSET


class AttemptFailure(msgspec.Struct):
    """How one attempt failed."""

    attempt: int
    type: str
    message: str
    traceback: str
    reason: Annotated[str, Meta(description="error, timeout, worker_lost, permanent, …")]
    at: Moment | msgspec.UnsetType = msgspec.UNSET


class TaskView(msgspec.Struct):
    """A task as it is now."""

    id: int
    type: str
    queue: str
    payload: Annotated[Any, Meta(description="As it was sent.")]
    status: TaskStatus
    result: Annotated[Any, Meta(description="The handler's value once the task is done, otherwise null.")]
    error: Annotated[str | None, Meta(description="The last error once the task failed, otherwise null.")]
    errors: Annotated[list[AttemptFailure], Meta(description="Failed and lost attempts, newest last.")]
    priority: int
    attempt: Annotated[int, Meta(description="Attempts started so far.")]
    max_attempts: Annotated[int, Meta(description="The highest that may start; a loss is no attempt and raises it.")]
    losses: Annotated[int, Meta(description="Workers that were lost while they ran it.")]
    progress: Annotated[Any, Meta(description="What the handler last reported, or null.")]
    run_at: Annotated[Moment, Meta(description="When it is or was due.")]
    created_at: Moment
    updated_at: Moment
    started_at: Moment | None
    finished_at: Moment | None


class TaskPage(msgspec.Struct):
    """Tasks, newest first."""

    tasks: list[TaskView]
    next_cursor: Annotated[str | None, Meta(description="Give it as `cursor` for the next page; null on the last.")]


class BacklogView(msgspec.Struct):
    """Tasks that wait, as last measured."""

    due: int
    delayed: int
    between_attempts: int


class QueueView(msgspec.Struct):
    """A queue as last measured; null figures mean that nobody has measured yet."""

    name: str
    paused: bool
    max_backlog: Annotated[int | None, Meta(description="Its own limit; null: the server's setting.")]
    backlog: BacklogView
    processing: int
    oldest_due_age_seconds: float | None
    workers: Annotated[int, Meta(description="Living workers that consume it.")]
    slots: Annotated[int, Meta(description="Tasks that these workers can run at once, over all their queues.")]
    measured_at: Moment | None


class QueueList(msgspec.Struct):
    """Every queue, by name."""

    queues: list[QueueView]


class RetryView(msgspec.Struct):
    """When a failed attempt is tried again, unless a task says otherwise."""

    max_attempts: int
    delay_seconds: float
    factor: float
    max_delay_seconds: float
    jitter: float


class TypeView(msgspec.Struct):
    """A task type as a worker last announced it, and who has it now."""

    name: str
    description: str
    queue: Annotated[str, Meta(description="Where its tasks wait, unless a task says otherwise.")]
    payload_schema: Annotated[Any, Meta(description="JSON Schema 2020-12.")]
    result_schema: Annotated[Any, Meta(description="JSON Schema 2020-12.")]
    timeout_seconds: float
    retry: RetryView
    announced_at: Moment
    workers: Annotated[int, Meta(description="Living workers that have it.")]
    workers_unknown: Annotated[int, Meta(description="Living workers of an older release, which may have it or not.")]
    queue_workers: Annotated[int, Meta(description="Of both, those that consume its queue.")]


class TypeList(msgspec.Struct):
    """Every known type, by name."""

    types: list[TypeView]


class ProblemFault(msgspec.Struct):
    """One place that is wrong."""

    pointer: Annotated[str, Meta(description="JSON Pointer into the body, /query/name or /path/name.")]
    detail: str


class ProblemView(msgspec.Struct, omit_defaults=True):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[ProblemFault] | msgspec.UnsetType = msgspec.UNSET


class LiveView(msgspec.Struct):
    """The process answers."""

    live: bool


class ReadyView(msgspec.Struct):
    """Whether requests should be sent here, and each fact that decides it."""

    ready: bool
    checks: dict[str, bool]


class HealthView(msgspec.Struct):
    """The health of the service as its first version reported it."""

    status: Literal["healthy", "unhealthy"]
    checks: dict[str, Literal["healthy", "unhealthy"]]


def encode(view: msgspec.Struct) -> bytes:
    """Return a view as JSON."""
    return _encoder.encode(view)


def task(row: Record) -> TaskView:
    """Return a task's row as its view."""
    status = row["status"]
    errors = row["errors"]
    return TaskView(
        id=row["id"],
        type=row["type"],
        queue=row["queue"],
        payload=_spliced(row["payload"]),
        status=status,
        result=_spliced(row["result"]),
        error=_last_message(errors) if status == "failed" else None,
        errors=_spliced(errors),
        priority=row["priority"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        losses=row["losses"],
        progress=_spliced(row["progress"]),
        run_at=row["run_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def etag(body: bytes) -> bytes:
    """Return the strong entity tag of a representation."""
    return b'"%s"' % blake2b(body, digest_size=12).hexdigest().encode("ascii")


def queue(row: Record, workers: Sequence[LiveWorker]) -> QueueView:
    """Return a queue's row as its view."""
    consuming = [worker for worker in workers if row["name"] in worker.queues]
    age = row["oldest_due_age_seconds"]
    return QueueView(
        name=row["name"],
        paused=row["paused"],
        max_backlog=row["max_backlog"],
        backlog=BacklogView(row["due"], row["delayed"], row["between_attempts"]),
        processing=row["processing"],
        oldest_due_age_seconds=None if age is None else max(age, 0.0),
        workers=len(consuming),
        slots=sum(worker.concurrency for worker in consuming),
        measured_at=row["measured_at"],
    )


def task_type(announced: Announced, workers: Sequence[LiveWorker]) -> TypeView:
    """Return a type as its view."""
    type_ = announced.type
    retry = type_.retry
    having = [worker for worker in workers if worker.may_have(type_.name)]
    known = sum(worker.types is not None for worker in having)
    return TypeView(
        name=type_.name,
        description=type_.description,
        queue=type_.queue,
        payload_schema=_spliced(type_.payload_schema),
        result_schema=_spliced(type_.result_schema),
        timeout_seconds=type_.timeout_seconds,
        retry=RetryView(retry.max_attempts, retry.delay_seconds, retry.factor, retry.max_delay_seconds, retry.jitter),
        announced_at=announced.announced_at,
        workers=known,
        workers_unknown=len(having) - known,
        queue_workers=sum(type_.queue in worker.queues for worker in having),
    )


def _spliced(text: str | None) -> Any:
    return _NULL if text is None else Raw(text.encode())


class _Message(msgspec.Struct):
    message: str = ""


_messages = msgspec.json.Decoder(list[_Message])


def _last_message(errors: str) -> str | None:
    found = _messages.decode(errors)
    return found[-1].message if found else None
