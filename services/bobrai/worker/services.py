"""What handlers ask of this process through their Context: progress, a transaction, a look at a payload.

In: calls from the event loop and from threads. Out: reports, and the one transaction of an attempt.
"""

import contextvars
from collections.abc import Callable

from bobrai.domain.errors import ClaimLost
from bobrai.handlers.codec import InvalidPayload
from bobrai.handlers.registry import Registry
from bobrai.worker.attempt import Attempt
from bobrai.worker.ports import Reports
from bobrai.worker.transaction import Transaction


class HandlerServices:
    """The services for all attempts of an executor; ``find`` returns the attempt at a task that is in its hands."""

    def __init__(
        self,
        registry: Registry,
        progress: Reports,
        new_transaction: Callable[[], Transaction],
        find: Callable[[int], Attempt | None],
    ) -> None:
        self._registry = registry
        self._progress = progress
        self._new_transaction = new_transaction
        self._find = find

    def report_progress(self, task_id: int, attempt: int, text: str) -> None:
        """Store the latest progress soon; may be called from any thread."""
        # Not in the handler's context: what begins there would be taken for the handler's own.
        contextvars.Context().run(self._progress.report, task_id, attempt, text)

    def open_transaction(self, task_id: int, attempt: int) -> Transaction:
        """Return the attempt's one transaction; its ``async with`` opens it."""
        there = self._find(task_id)
        if there is None or there.finished or there.claim.attempt != attempt:
            raise ClaimLost("this attempt is over")
        if not there.handler.is_direct:
            raise RuntimeError("ctx.transaction() is for async handlers without a batch")
        if there.transaction is None:
            there.transaction = self._new_transaction()
        return there.transaction

    def check_payload(self, type_: str, payload: str) -> None:
        """Raise ValueError when a handler of this process could not take the payload, which is JSON text."""
        handler = self._registry.get(type_)
        if handler is None or handler.signature.payload is None:
            return
        try:
            handler.decode(payload)
        except InvalidPayload as error:
            raise ValueError(f"the payload is none of type {type_!r}: {error}") from None
