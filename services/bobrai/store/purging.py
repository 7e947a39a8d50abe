"""A queue's tasks cancelled for good, step by step: what waits, and what runs is asked to stop.

In: a queue and who wishes it. Out: how many tasks each step took, and one row of ``audit`` for the whole.
"""

from bobrai.domain.audit import Action, Author
from bobrai.store import audit
from bobrai.store.pool import Executor, Record, Transactional
from bobrai.store.queries import statement

_CANCEL_WAITING = statement("cancel_waiting")
_CANCEL_RUNNING = statement("cancel_running")


class Purge:
    """One wish to purge; every step is committed by itself, with what it adds to the count."""

    def __init__(self, database: Transactional, queue: str, *, by: Author) -> None:
        self._database = database
        self._queue = queue
        self._by = by
        self._row_id: int | None = None
        self.cancelled = 0
        self.asked_to_stop = 0

    async def cancel_waiting(self, *, limit: int) -> dict[str, int]:
        """Cancel some of what waits in the queue, at most ``limit``; returns how many of each type."""
        async with self._database.transaction() as transaction:
            rows: list[Record] = await transaction.fetch(_CANCEL_WAITING, self._queue, limit)
            cancelled = self.cancelled + sum(row["tasks"] for row in rows)
            row_id = await self._recorded(transaction, cancelled, self.asked_to_stop)
        self.cancelled, self._row_id = cancelled, row_id
        return {row["type"]: row["tasks"] for row in rows}

    async def ask_running(self, *, limit: int) -> int:
        """Ask the workers of some of what runs in the queue to stop it, at most ``limit``; returns how many."""
        async with self._database.transaction() as transaction:
            asked = len(await transaction.fetch(_CANCEL_RUNNING, self._queue, limit))
            row_id = await self._recorded(transaction, self.cancelled, self.asked_to_stop + asked)
        self.asked_to_stop, self._row_id = self.asked_to_stop + asked, row_id
        return asked

    def tell(self) -> None:
        """Say in the log what was recorded, if anything was."""
        audit.tell(self._row_id, Action.QUEUE_PURGE, f"queue:{self._queue}", self._by)

    async def _recorded(self, transaction: Executor, cancelled: int, asked_to_stop: int) -> int | None:
        if (cancelled, asked_to_stop) == (self.cancelled, self.asked_to_stop):
            return self._row_id
        return await audit.record_purge(
            transaction, self._row_id, self._queue, cancelled=cancelled, asked_to_stop=asked_to_stop, by=self._by
        )
