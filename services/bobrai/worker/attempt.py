"""One attempt in the hands of this worker, from its claim until its outcome is written.

In: a claim and the delivery that brought its hint. The executor changes its state; ``outcomes`` says how it ended.
"""

import asyncio
import time
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from bobrai.domain.task import Claim
from bobrai.handlers.context import Context, Services
from bobrai.handlers.handler import Handler
from bobrai.telemetry.spans import AttemptSpan
from bobrai.worker.transaction import Transaction

if TYPE_CHECKING:  # it says whose lines are whose
    from bobrai.worker.place import Place


class StopCause(Enum):
    """Why a running attempt is told to end; the first one counts, except that LOST overrides all."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"  # a user's wish
    INTERRUPTED = "interrupted"  # our shutdown
    LOST = "lost"  # the worker's lease is gone: whatever comes out is dropped


class Settleable(Protocol):
    """What waits for the hint to be settled: a delivery, counted down."""

    def settle(self) -> None:
        """One hint of the delivery needs nothing more."""


def fields_of(claim: Claim) -> dict[str, object]:
    """What every log line about an attempt carries."""
    return {
        "request_id": claim.request_id,
        "task_id": claim.task_id,
        "attempt": claim.attempt,
        "type": claim.type,
        "queue": claim.queue,
    }


class Claimed:
    """A task that is ours, and the hint's delivery that waits for it."""

    __slots__ = ("claim", "claimed_at", "held", "ran_seconds", "worker_id")

    def __init__(self, claim: Claim, held: Settleable, worker_id: int) -> None:
        self.claim = claim
        self.held = held
        self.worker_id = worker_id
        self.claimed_at = time.monotonic()
        self.ran_seconds: float | None = None  # once a handler has ended

    @property
    def trace_id(self) -> str:
        """The trace that shows this attempt: none does before it has started."""
        return ""

    @property
    def trace_context(self) -> str:
        """Where it stands in its trace: what it submits comes after it."""
        return self.claim.trace_context

    def fields(self) -> dict[str, object]:
        """What every log line about it carries."""
        return fields_of(self.claim)


class Attempt(Claimed):
    """A claimed task with everything that its run needs."""

    __slots__ = (
        "cause",
        "closing",
        "context",
        "finished",
        "handler",
        "place",
        "span",
        "started",
        "task",
        "timer",
        "transaction",
    )

    context: Context  # from the start on

    def __init__(self, claim: Claim, held: Settleable, worker_id: int, handler: Handler) -> None:
        super().__init__(claim, held, worker_id)
        self.handler = handler
        self.place: Place | None = None  # where it runs alone; None: here
        self.task: asyncio.Task[None] | None = None  # None: it waits for a slot
        self.timer: asyncio.TimerHandle | None = None
        self.transaction: Transaction | None = None
        self.cause: StopCause | None = None
        self.closing = False  # the handler has returned, its transaction is being committed: too late to stop it
        self.finished = False  # its slot is free, its outcome is on the way
        self.started = 0.0
        self.span: AttemptSpan | None = None  # None: traces are off, or it has not started

    @property
    def trace_id(self) -> str:
        """The trace that shows this attempt; empty when none does."""
        return "" if self.span is None else self.span.trace_id

    @property
    def trace_context(self) -> str:
        """Where it stands in its trace: what it submits comes after it."""
        return self.claim.trace_context if self.span is None else self.span.context

    @property
    def waits_for_process(self) -> bool:
        """Whether its handler has not begun, for want of a process."""
        return self.place is not None and self.task is not None and not self.place.is_prepared

    def begin(self, services: Services) -> Context:
        """Note the start and make the handler's context."""
        self.started = time.monotonic()
        if self.claim.deadline_seconds is not None:
            self.claim = self.claim.after(self.started - self.claimed_at)
        self.context = Context(self.claim, services)
        return self.context
