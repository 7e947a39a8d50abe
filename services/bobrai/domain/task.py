"""What a task is, the states it passes through, and the values that travel between the rooms and the store.

Rows become these values in ``store``; nothing here touches a database. The transition table is the one that the
schema's CHECK constraints and the statements in ``store/sql`` implement.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import structs

from bobrai.domain.children import Child
from bobrai.domain.limiting import Limits
from bobrai.domain.retry import Retry
from bobrai.domain.unique import Held, Unique


class TaskStatus(StrEnum):
    """Where a task stands; the last three are final."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL: Final = frozenset({TaskStatus.DONE, TaskStatus.FAILED, TaskStatus.CANCELLED})

TRANSITIONS: Final[Mapping[TaskStatus, frozenset[TaskStatus]]] = {
    # What waits fails by its deadline only: no attempt may start any more.
    TaskStatus.PENDING: frozenset({TaskStatus.PROCESSING, TaskStatus.CANCELLED, TaskStatus.FAILED}),
    TaskStatus.PROCESSING: frozenset({TaskStatus.DONE, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.PENDING}),
    # A finished task becomes pending again only by an explicit replay.
    TaskStatus.DONE: frozenset({TaskStatus.PENDING}),
    TaskStatus.FAILED: frozenset({TaskStatus.PENDING}),
    TaskStatus.CANCELLED: frozenset({TaskStatus.PENDING}),
}

DEFAULT_QUEUE: Final = "default"
DEFAULT_TYPE: Final = "demo"
DEFAULT_TIMEOUT_SECONDS: Final = 300.0


# No dataclass, nor the others of which one is made for each task: a frozen dataclass takes a microsecond for that.
class NewTask(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A validated submission with every default filled in, ready to become a row.

    ``payload`` is JSON text, kept as the client wrote it. ``run_at`` wins over ``delay_seconds``; both absent
    means due at once. ``deadline_at`` wins over ``deadline_seconds``, ``expires_at`` over ``expires_seconds``; the
    seconds count from the acceptance, and both absent means that there is no such moment.
    """

    type: str
    payload: str
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    retry: Retry = msgspec.field(default_factory=Retry)
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    delay_seconds: float = 0.0
    run_at: datetime | None = None
    deadline_seconds: float | None = None
    deadline_at: datetime | None = None
    expires_seconds: float | None = None
    expires_at: datetime | None = None
    request_id: str = ""
    trace_context: str = ""
    client_id: str = ""  # the principal who submitted it; empty: anonymous
    unique: Held | None = None  # None: alike to no other


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """A client's replay key and the fingerprint of the request that it came with."""

    key: str
    fingerprint: bytes
    ttl_seconds: float
    client_id: str = ""  # each principal has keys of its own


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A task that this worker may run: the claimed row, with ``attempt`` as the fencing token."""

    task_id: int
    attempt: int
    type: str
    queue: str
    priority: int
    payload: str
    max_attempts: int
    # How many attempts of the current set failed before this one: a replay starts a new set, a loss or a snooze is no
    # failure.
    failures: int
    retry: Retry
    timeout_seconds: float
    request_id: str
    trace_context: str
    wait_seconds: float  # from due to claimed, by the database's clock
    age_seconds: float  # from accepted to claimed
    losses: int = 0  # workers lost while they ran it; more than 0: it may be what they died of
    snoozes: int = 0  # RetryLater of the current set that cost no attempt
    client_id: str = ""  # the principal who submitted it
    deadline_seconds: float | None = None  # what is left of the task's time; None: it has no deadline
    ends_with_task: bool = False  # its timeout is the task's deadline

    def after(self, seconds: float) -> "Claim":
        """Return it as it is after a wait: its timeout ends no later than the task's deadline."""
        if self.deadline_seconds is None:
            return self
        left = max(0.0, self.deadline_seconds - seconds)
        if left > self.timeout_seconds:
            return structs.replace(self, deadline_seconds=left)
        return structs.replace(self, deadline_seconds=left, timeout_seconds=left, ends_with_task=True)


class OutcomeKind(StrEnum):
    """How an attempt ended; ``store`` turns each into the next status."""

    DONE = "done"
    FAILED = "failed"  # final: no attempts left, or a permanent failure
    RETRY = "retry"  # pending again after a delay
    SNOOZE = "snooze"  # pending again after a delay that the handler asked for; it costs no attempt
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"  # given back by a shutdown: pending again, the attempt is not counted


@dataclass(frozen=True, slots=True)
class AttemptError:
    """What went wrong in one attempt, bounded in size before it gets here."""

    type: str
    message: str
    traceback: str = ""
    # error, timeout, worker_lost, crashed, memory_limit, invalid_payload, invalid_result, permanent, non_retryable,
    # retry_later, deadline, expired
    reason: str = "error"


class Outcome(msgspec.Struct, frozen=True):
    """The end of one claimed attempt, to be written once, fenced by the attempt number and the worker's id.

    ``result`` is JSON text, for DONE only. ``delay_seconds`` says when a task that goes on is due again.
    ``progress`` is the handler's last report as JSON text, unless that is written already. ``children`` are stored with
    it, for DONE only.
    """

    task_id: int
    attempt: int
    kind: OutcomeKind
    result: str | None = None
    error: AttemptError | None = None
    delay_seconds: float = 0.0
    progress: str | None = None
    children: tuple[Child, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskType:
    """What a worker announces of a handler, so that the API can check payloads and fill in defaults.

    ``payload_schema`` and ``result_schema`` are JSON Schema 2020-12, as JSON text. ``limits`` are the declared ones,
    whatever people have set instead; ``runs_in`` and ``memory_mb`` (MiB) are as in the declaration.
    """

    name: str
    queue: str = DEFAULT_QUEUE
    description: str = ""
    payload_schema: str = "{}"
    result_schema: str = "{}"
    retry: Retry = field(default_factory=Retry)
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    deadline_seconds: float | None = None
    unique: Unique | None = None
    limits: Limits | None = None
    runs_in: str | None = None
    memory_mb: int | None = None
