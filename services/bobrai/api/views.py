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

from bobrai.api.limits_view import LimitsView, limits_view
from bobrai.domain.access import Grant, Principal, Scope
from bobrai.domain.task import TaskStatus
from bobrai.domain.unique import OnConflict, Unique, While
from bobrai.store.pool import Record
from bobrai.store.records import limits_text
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


class TaskFound(msgspec.Struct):
    """A task of this kind was there, and there is to be one."""

    task_id: int
    duplicate: Annotated[bool, Meta(description="Always true.")] = True
    warnings: Warnings | msgspec.UnsetType = msgspec.UNSET


class BatchCreated(msgspec.Struct, omit_defaults=True):
    """All tasks are committed."""

    task_ids: Annotated[list[int], Meta(description="In the order of the request.")]
    duplicates: Annotated[
        list[int] | msgspec.UnsetType,
        Meta(description="Places in task_ids, from 0, of tasks that were there before. Absent without any."),
    ] = msgspec.UNSET
    warnings: Warnings | msgspec.UnsetType = msgspec.UNSET


_ABSENT = "Absent without the scope `tasks:payload`."
_PAYLOAD = Meta(description=_ABSENT)


class AttemptFailure(msgspec.Struct, kw_only=True):
    """How one attempt failed."""

    attempt: int
    type: str
    message: Annotated[str | msgspec.UnsetType, _PAYLOAD] = msgspec.UNSET
    traceback: Annotated[str | msgspec.UnsetType, _PAYLOAD] = msgspec.UNSET
    reason: Annotated[
        str,
        Meta(
            description="error, timeout, worker_lost, crashed, memory_limit, invalid_payload, invalid_result,"
            " permanent, non_retryable, retry_later, deadline or expired."
        ),
    ]
    at: Moment | msgspec.UnsetType = msgspec.UNSET


class TaskView(msgspec.Struct, kw_only=True):
    """A task as it is now."""

    id: int
    type: str
    queue: str
    payload: Annotated[Any, Meta(description=f"As it was sent. {_ABSENT}")] = msgspec.UNSET
    status: TaskStatus
    result: Annotated[
        Any, Meta(description=f"The handler's value once the task is done, otherwise null. {_ABSENT}")
    ] = msgspec.UNSET
    error: Annotated[
        str | msgspec.UnsetType | None,
        Meta(description=f"The last error once the task failed, otherwise null. {_ABSENT}"),
    ] = msgspec.UNSET
    errors: Annotated[
        list[AttemptFailure], Meta(description="Failed, lost and snoozed attempts, or why none may start, newest last.")
    ]
    priority: int
    attempt: Annotated[int, Meta(description="Attempts started so far.")]
    max_attempts: Annotated[int, Meta(description="The highest that may start; a loss or a snooze raises it.")]
    losses: Annotated[int, Meta(description="Workers that were lost while they ran it.")]
    snoozes: Annotated[
        int, Meta(description="How often its handler asked for a later start, which is no attempt, since a replay.")
    ]
    progress: Annotated[Any, Meta(description=f"What the handler last reported, or null. {_ABSENT}")] = msgspec.UNSET
    run_at: Annotated[Moment, Meta(description="When it is or was due.")]
    deadline_at: Annotated[Moment | None, Meta(description="When it fails unless it has ended; null: never.")]
    expires_at: Annotated[Moment | None, Meta(description="When it is cancelled unless it has started; null: never.")]
    parent_id: Annotated[int | None, Meta(description="The task whose handler has submitted it; null: none.")]
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

    due: Annotated[int, Meta(description="Kept back by nothing but the want of workers.")]
    held: Annotated[int, Meta(description="Due, and kept back by a limit of the queue, of their type or of their key.")]
    delayed: int
    between_attempts: int


class QueueView(msgspec.Struct):
    """A queue as last measured.

    Null figures mean that nobody has measured yet, or that they count tasks which the credential does not reach.
    """

    name: str
    paused: bool
    max_backlog: Annotated[int | None, Meta(description="Its own limit; null: the server's setting.")]
    limits: Annotated[LimitsView | None, Meta(description="What bounds its tasks beside the backlog; null: nothing.")]
    backlog: BacklogView | None
    processing: int | None
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
    retry_for_seconds: Annotated[
        float | None,
        Meta(description="No attempt starts later than this after the first one. null: no bound in time."),
    ]


class UniqueView(msgspec.Struct):
    """Of which tasks of the type there is one at a time, unless a task says otherwise."""

    key: Annotated[str, Meta(description="JSON Pointer into the payload; empty: all of it.")]
    for_seconds: Annotated[float | None, Meta(description="From the acceptance of the first one on; null: no bound.")]
    while_: Annotated[While, Meta(description="For how long the first one is the only one.")] = msgspec.field(
        name="while"
    )
    on_conflict: Annotated[OnConflict, Meta(description="Whether the first one stays as it is.")]


class TypeView(msgspec.Struct):
    """A task type as a worker last announced it, and who has it now."""

    name: str
    description: str
    queue: Annotated[
        str | None,
        Meta(description="Where its tasks wait, unless a task says otherwise; null: out of the credential's reach."),
    ]
    payload_schema: Annotated[Any, Meta(description="JSON Schema 2020-12.")]
    result_schema: Annotated[Any, Meta(description="JSON Schema 2020-12.")]
    timeout_seconds: float
    deadline_seconds: Annotated[float | None, Meta(description="Of a whole task, from its acceptance; null: none.")]
    retry: RetryView
    unique: Annotated[UniqueView | None, Meta(description="null: there may be any number of alike tasks.")]
    limits: Annotated[LimitsView | None, Meta(description="In force; null: none.")]
    declared_limits: Annotated[LimitsView | None, Meta(description="As its handler declares them; null: none.")]
    limits_set: Annotated[bool, Meta(description="Those in force were set by PATCH, in place of the declared ones.")]
    runs_in: Annotated[str | None, Meta(description="`process`: one of its own; null: in the worker, or not known.")]
    memory_mb: Annotated[int | None, Meta(description="The most memory of its process, in MiB; null: not bound.")]
    announced_at: Moment
    workers: Annotated[int, Meta(description="Living workers that have it.")]
    workers_unknown: Annotated[int, Meta(description="Living workers of an older release, which may have it or not.")]
    queue_workers: Annotated[
        int | None, Meta(description="Of both, those that consume its queue; null with the queue.")
    ]


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
    scope: Annotated[str | msgspec.UnsetType, Meta(description="The scope that is missing.")] = msgspec.UNSET
    reason: Annotated[
        str | msgspec.UnsetType, Meta(description="Why the credential is refused, in one of a few words.")
    ] = msgspec.UNSET
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


def task(row: Record, principal: Principal) -> TaskView:
    """Return a task's row as its view; what handlers were given and what they answered only to who may see it."""
    status = row["status"]
    errors = row["errors"]
    # Who may cancel a task and not read it is shown what became of it, and nothing of what it is about.
    whole = principal.may(Scope.TASKS_READ) and principal.may(Scope.TASKS_PAYLOAD)
    return TaskView(
        id=row["id"],
        type=row["type"],
        queue=row["queue"],
        payload=_spliced(row["payload"]) if whole else msgspec.UNSET,
        status=status,
        result=_spliced(row["result"]) if whole else msgspec.UNSET,
        error=msgspec.UNSET if not whole else _last_message(errors) if status == "failed" else None,
        errors=_spliced(errors) if whole else _without_texts(errors),
        priority=row["priority"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        losses=row["losses"],
        snoozes=row["snoozes"],
        progress=_spliced(row["progress"]) if whole else msgspec.UNSET,
        run_at=row["run_at"],
        deadline_at=row["deadline_at"],
        expires_at=row["expires_at"],
        parent_id=row["parent_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def etag(body: bytes) -> bytes:
    """Return the strong entity tag of a representation."""
    return b'"%s"' % blake2b(body, digest_size=12).hexdigest().encode("ascii")


def queue(row: Record, workers: Sequence[LiveWorker], grant: Grant) -> QueueView:
    """Return a queue's row as its view; figures that count tasks outside of the grant are kept back."""
    counts = grant.has_whole_queues
    consuming = [worker for worker in workers if row["name"] in worker.queues]
    age = row["oldest_due_age_seconds"]
    return QueueView(
        name=row["name"],
        paused=row["paused"],
        max_backlog=row["max_backlog"],
        limits=limits_view(row["limits"], whole=counts),
        backlog=BacklogView(row["due"], row["held"], row["delayed"], row["between_attempts"]) if counts else None,
        processing=row["processing"] if counts else None,
        oldest_due_age_seconds=max(age, 0.0) if counts and age is not None else None,
        workers=len(consuming),
        slots=sum(worker.concurrency for worker in consuming),
        measured_at=row["measured_at"],
    )


def task_type(announced: Announced, workers: Sequence[LiveWorker], grant: Grant) -> TypeView:
    """Return a type as its view; a queue that is outside of the grant is not named."""
    type_ = announced.type
    retry = type_.retry
    having = [worker for worker in workers if worker.may_have(type_.name)]
    known = sum(worker.types is not None for worker in having)
    reached = grant.has_queue(type_.queue)
    return TypeView(
        name=type_.name,
        description=type_.description,
        queue=type_.queue if reached else None,
        payload_schema=_spliced(type_.payload_schema),
        result_schema=_spliced(type_.result_schema),
        timeout_seconds=type_.timeout_seconds,
        deadline_seconds=type_.deadline_seconds,
        retry=RetryView(
            retry.max_attempts,
            retry.delay_seconds,
            retry.factor,
            retry.max_delay_seconds,
            retry.jitter,
            retry.retry_for_seconds,
        ),
        unique=_unique(type_.unique),
        limits=limits_view(announced.limits, whole=grant.has_whole_types),
        declared_limits=limits_view(limits_text(type_.limits), whole=grant.has_whole_types),
        limits_set=announced.limits_set,
        runs_in=type_.runs_in,
        memory_mb=type_.memory_mb,
        announced_at=announced.announced_at,
        workers=known,
        workers_unknown=len(having) - known,
        queue_workers=sum(type_.queue in worker.queues for worker in having) if reached else None,
    )


def _unique(rule: Unique | None) -> UniqueView | None:
    return None if rule is None else UniqueView(rule.key, rule.for_seconds, rule.while_, rule.on_conflict)


def _spliced(text: str | None) -> Any:
    return _NULL if text is None else Raw(text.encode())


_failures = msgspec.json.Decoder(list[AttemptFailure])


def _without_texts(errors: str) -> list[AttemptFailure]:
    found = _failures.decode(errors)
    for failure in found:
        failure.message = failure.traceback = msgspec.UNSET
    return found


class _Message(msgspec.Struct):
    message: str = ""


_messages = msgspec.json.Decoder(list[_Message])


def _last_message(errors: str) -> str | None:
    found = _messages.decode(errors)
    return found[-1].message if found else None
