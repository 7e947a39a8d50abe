"""Ends what waits past its deadline or its expiry, since no attempt may start any more.

In: pending tasks whose deadline has passed, or that have never started and whose expiry has. Out: failed tasks with
reason `deadline`, cancelled ones with reason `expired`. What runs at its deadline is its worker's to stop. A row that
cannot be written holds up no other.
"""

from collections.abc import Sequence

from bobrai.domain.errors import DatabaseUnavailable, StoreRejected, is_of_one_row
from bobrai.domain.task import TaskStatus
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.loop import PeriodicLoop
from bobrai.settings import Settings
from bobrai.store import tasks
from bobrai.store.pool import Database
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)

BATCH = 1000


class Deadlines:
    """Looks for tasks that are overdue."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._loop = PeriodicLoop("deadlines", settings.dispatcher.reap_seconds, self.run_once)

    async def run(self, stop: Stop) -> None:
        """End overdue tasks until the process stops."""
        await self._loop.run(stop)

    async def run_once(self) -> None:
        """Do one round; raises DatabaseUnavailable, and StoreRejected when a row cannot be written."""
        while overdue := await tasks.overdue(self._database, limit=BATCH):
            ended = await self._end(overdue)
            if len(overdue) < BATCH or not ended:
                return

    async def _end(self, task_ids: Sequence[int]) -> int:
        try:
            return await self._write(task_ids)
        except (StoreRejected, DatabaseUnavailable) as error:
            if not is_of_one_row(error):
                raise
        ended = 0
        refused: StoreRejected | DatabaseUnavailable | None = None
        for task_id in task_ids:
            try:
                ended += await self._write([task_id])
            except (StoreRejected, DatabaseUnavailable) as error:
                if not is_of_one_row(error):
                    raise
                refused = error
        if refused is not None:
            raise refused
        return ended

    async def _write(self, task_ids: Sequence[int]) -> int:
        rows = await tasks.end_overdue(self._database, task_ids)
        for row in rows:
            metrics.TASKS_FINISHED.labels(row["queue"], row["type"], row["status"]).inc()
            ids = {"task_id": row["id"]} | {name: row[name] for name in ("attempt", "type", "queue", "request_id")}
            if row["status"] == TaskStatus.CANCELLED:
                log.info("task.expired", **ids)
            else:
                log.warning("task.overdue", **ids)
        return len(rows)
