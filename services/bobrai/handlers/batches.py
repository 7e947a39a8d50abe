"""What a handler gets that is called for many tasks at once: one Item each.

In: the Context and the payload of an attempt. Out: what the handler says of this task alone, which the worker reads
when the call has ended.
"""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Generic, TypeVar

from bobrai.domain.errors import BobraiError, PermanentFailure, RetryLater
from bobrai.domain.submitting import Submission
from bobrai.handlers.context import Context
from bobrai.handlers.follow_ups import FollowUps
from bobrai.telemetry.logger import BoundLogger

Payload = TypeVar("Payload")


class RetryItem(BobraiError):
    """A batch handler says that the attempt of one item has failed; its retry policy decides what follows."""


class Item(FollowUps, Generic[Payload]):
    """One task among those that a handler is called with; ``ctx`` is the Context of its attempt."""

    __slots__ = ("_left", "_marked", "ctx", "payload")

    def __init__(self, ctx: Context, payload: Payload) -> None:
        self.ctx = ctx
        self.payload = payload
        self._left = False
        self._marked: BobraiError | None = None

    @property
    def task_id(self) -> int:
        """The task's id."""
        return self.ctx.task_id

    @property
    def attempt(self) -> int:
        """The number of this start of the task, from 1."""
        return self.ctx.attempt

    @property
    def max_attempts(self) -> int:
        """The highest attempt number that may start."""
        return self.ctx.max_attempts

    @property
    def deadline(self) -> datetime:
        """The moment (UTC, by this machine's clock) at which the attempt times out."""
        return self.ctx.deadline

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the attempt times out; never below 0."""
        return self.ctx.remaining_seconds

    @property
    def cancelled(self) -> bool:
        """Whether this task was told to end: whatever becomes of it here is dropped, the others go on."""
        return self._left or self.ctx.cancelled

    @property
    def logger(self) -> BoundLogger:
        """A logger whose lines carry request_id, task_id, attempt, type and queue."""
        return self.ctx.logger

    def progress(self, value: Any) -> None:
        """Show how far this task has come, as ``Context.progress`` does; raises ValueError as that does."""
        self.ctx.progress(value)

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """Raise RuntimeError: in a batch each task ends for itself."""
        raise RuntimeError("there is no transaction() in a batch, where each task ends for itself: declare it without")

    def fail(self, reason: str) -> None:
        """Fail this task, whatever attempts are left; its result is ignored. The first ``fail`` or ``retry`` counts."""
        self._mark(PermanentFailure(reason))

    def retry(self, delay: float | None = None, reason: str = "") -> None:
        """Run this task again: as its retry policy says or, at no attempt's cost, after ``delay`` seconds.

        Its result is ignored. The first ``fail`` or ``retry`` counts. Raises ValueError for what is no delay.
        """
        if delay is None:
            self._mark(RetryItem(reason or "the handler asked for another attempt"))
        else:
            self._mark(RetryLater(delay, reason))

    @property
    def marked(self) -> BobraiError | None:
        """What the handler has said of this task, as if it had raised it alone."""
        return self._marked

    def leave(self) -> None:
        """Make ``cancelled`` true; the worker calls this."""
        self._left = True

    def _mark(self, said: BobraiError) -> None:
        self._marked = self._marked or said

    def _ask(self, submissions: Iterable[Submission]) -> None:
        self.ctx._ask(submissions)  # noqa: SLF001 - of one room
