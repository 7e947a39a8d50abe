"""Gives back tasks that are claimed for this worker and that it does not hold: nobody else would ever look for them.

In: the rows under this worker's id, and what the executor holds. Out: rows that are pending again. No part of bobrAI
leaves such a row; a security policy or a trigger that somebody adds to the table can, by hiding a write's row from it.
"""

from collections.abc import Callable
from typing import Final

from bobrai.domain.message import Hint
from bobrai.domain.task import Outcome, OutcomeKind
from bobrai.store import attempts
from bobrai.store.pool import Database
from bobrai.telemetry import logs
from bobrai.worker.executor import Executor
from bobrai.worker.lease import Lease

log = logs.get_logger(__name__)

LOOK_SECONDS: Final = 5.0
_TOLD: Final = 20  # ids of one line


class Orphans:
    """Remembers what looked like one the last time: only what still does is given back."""

    def __init__(self, database: Database, lease: Lease, executor: Executor, may_come: Callable[[Hint], bool]) -> None:
        self._database = database
        self._lease = lease
        self._executor = executor
        self._may_come = may_come  # as a claim whose answer is late
        self._seen: set[tuple[int, int]] = set()

    async def look(self) -> None:
        """Look for orphans; call it every ``LOOK_SECONDS``. Raises DatabaseUnavailable."""
        worker_id = self._lease.worker_id
        if worker_id is None:
            self._seen = set()
            return
        found = await attempts.orphans(self._database, worker_id, self._executor.held)
        # From here to the statement nothing else runs, and what is not on its way now cannot come any more.
        found = {each for each in found if not self._executor.has(*each) and not self._may_come(_hint(*each))}
        lasting, self._seen = sorted(found & self._seen), found
        if lasting and worker_id == self._lease.worker_id:
            told = [task_id for task_id, _ in lasting[:_TOLD]]
            log.error("task.orphaned", worker_id=worker_id, count=len(lasting), tasks=told)
            await attempts.end(self._database, worker_id, [Outcome(*each, OutcomeKind.INTERRUPTED) for each in lasting])


def _hint(task_id: int, attempt: int) -> Hint:
    return Hint(task_id, attempt - 1)
