"""What a handler knows of the attempt that it runs in, and what it can ask for.

In: a claim and the worker's services. Out: facts, progress, a cancel flag, a logger, follow-up tasks, one database
transaction. A plain function may use everything but ``transaction()`` from its thread.
"""

import time
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from pydantic_core import PydanticSerializationError, to_json

from bobrai.domain import limits, submitting
from bobrai.domain.children import Child, child
from bobrai.domain.submitting import Submission
from bobrai.domain.task import Claim
from bobrai.handlers.codec import payload_text
from bobrai.handlers.follow_ups import FollowUps
from bobrai.telemetry.logger import BoundLogger

log: Final = BoundLogger("task")


class Services(Protocol):
    """What the worker does for an attempt."""

    def report_progress(self, task_id: int, attempt: int, text: str) -> None:
        """Store the latest progress soon; may be called from any thread."""

    def open_transaction(self, task_id: int, attempt: int) -> AbstractAsyncContextManager[Any]:
        """Open the transaction in which the attempt's outcome will be written."""

    def check_payload(self, type_: str, payload: str) -> None:
        """Raise ValueError when a handler of this process could not take the payload, which is JSON text."""


class Context(FollowUps):
    """One attempt of one task. Attributes are facts about it and must not be changed."""

    __slots__ = (
        "_asked",
        "_asked_characters",
        "_deadline",
        "_ends",
        "_logger",
        "_services",
        "_stopped",
        "attempt",
        "max_attempts",
        "queue",
        "request_id",
        "task_id",
        "type",
    )

    def __init__(self, claim: Claim, services: Services) -> None:
        self.task_id = claim.task_id
        #: Counts the starts of this task, so that a handler can fence its own writes elsewhere with it. Only an attempt
        #: that a shutdown gave back is counted again under the same number.
        self.attempt = claim.attempt
        #: The highest attempt number that may start; when this is the last one, the next failure is final.
        self.max_attempts = claim.max_attempts
        self.type = claim.type
        self.queue = claim.queue
        self.request_id = claim.request_id
        self._ends = time.monotonic() + claim.timeout_seconds
        self._services = services
        self._stopped = False
        self._asked: list[Child] = []
        self._asked_characters = 0
        self._deadline: datetime | None = None
        self._logger: BoundLogger | None = None

    @property
    def deadline(self) -> datetime:
        """The moment (UTC, by this machine's clock) at which the attempt times out."""
        if self._deadline is None:
            self._deadline = datetime.now(UTC) + timedelta(seconds=self._ends - time.monotonic())
        return self._deadline

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the attempt times out; never below 0."""
        return max(0.0, self._ends - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether the attempt should end now: a user's cancel, its timeout, a shutdown, or a lost claim.

        An async handler is cancelled besides; a plain function has to ask, from time to time, and return.
        """
        return self._stopped

    @property
    def logger(self) -> BoundLogger:
        """A logger whose lines carry request_id, task_id, attempt, type and queue."""
        if self._logger is None:
            self._logger = log.bind(
                request_id=self.request_id,
                task_id=self.task_id,
                attempt=self.attempt,
                type=self.type,
                queue=self.queue,
            )
        return self._logger

    def progress(self, value: Any) -> None:
        """Show how far the attempt has come: any JSON value, at most 4 KiB; the latest one counts.

        Returns at once; written a few times per second at most, whatever the pace of calls. Raises ValueError when the
        value cannot be shown.
        """
        try:
            data = to_json(value, inf_nan_mode="null")
        except PydanticSerializationError as error:
            raise ValueError(f"progress must be a JSON value: {error}") from error
        if len(data) > limits.MAX_PROGRESS_BYTES:
            raise ValueError(f"progress has {len(data)} bytes of JSON; at most {limits.MAX_PROGRESS_BYTES} are kept")
        self._services.report_progress(self.task_id, self.attempt, data.decode())

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """Open a database transaction that commits together with this attempt's result, or not at all.

        ``async with ctx.transaction() as conn:`` gives an asyncpg connection. The commit happens when the handler has
        returned, in one piece with the fenced completion; when the handler raises, times out, or has lost its claim,
        everything is rolled back. One per attempt; for async handlers. Raises RuntimeError for a second one, and
        DatabaseUnavailable when PostgreSQL cannot be reached.
        """
        return self._services.open_transaction(self.task_id, self.attempt)

    @property
    def children(self) -> tuple[Child, ...]:
        """What is to be submitted when the attempt is done; the worker asks for it."""
        return tuple(self._asked)

    def _ask(self, submissions: Iterable[Submission]) -> None:
        children = [self._child(each) for each in submissions]
        characters = self._asked_characters + sum(len(each.payload) for each in children)
        if len(self._asked) + len(children) > limits.MAX_CHILDREN or characters > limits.MAX_CHILDREN_CHARACTERS:
            raise ValueError(
                f"an attempt submits at most {limits.MAX_CHILDREN} tasks with {limits.MAX_CHILDREN_CHARACTERS} "
                "characters of payloads: let one of them submit the rest"
            )
        self._asked_characters = characters
        self._asked.extend(children)  # in one step, whatever threads a handler has

    def _child(self, submission: Submission) -> Child:
        type_ = submitting.type_of(submission.task)
        text = payload_text(submission.payload)
        asked = child(type_, text, submission.options)
        self._services.check_payload(type_, text)
        return asked

    def stop(self) -> None:
        """Make ``cancelled`` true; the worker calls this."""
        self._stopped = True
