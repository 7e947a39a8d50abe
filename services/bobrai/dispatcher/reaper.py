"""Takes back what lost workers were running: only because a worker is gone, never because a task is old.

In: worker rows whose lease is over. Out: their tasks, pending again with a new outbox row, or failed with reason
`worker_lost` when they were lost too often. A row that cannot be written holds up no other. While the database was away
nobody could renew, so after a failed round the search rests for one lease.
"""

import time
from collections.abc import Sequence

from bobrai.domain.errors import BobraiError, DatabaseUnavailable, StoreRejected, is_of_one_row
from bobrai.domain.task import TaskStatus
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.loop import PeriodicLoop
from bobrai.settings import Settings
from bobrai.store import workers
from bobrai.store.pool import Database, Record
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)

BATCH = 1000


class Reaper:
    """Looks for expired leases and for claims without a worker."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._lease_seconds = settings.worker.lease_seconds
        self._database = database
        self._rests_until = float("-inf")
        self._refused: set[int] = set()  # tasks whose row could not be written in the last round
        self._loop = PeriodicLoop("reaper", settings.dispatcher.reap_seconds, self.run_once)

    async def run(self, stop: Stop) -> None:
        """Reap until the process stops."""
        await self._loop.run(stop)

    async def run_once(self) -> None:
        """Do one round; raises DatabaseUnavailable."""
        try:
            if time.monotonic() >= self._rests_until:
                await self._expire()
            else:
                await self._database.ping()  # an outage within the rest prolongs it
            await self._take_all_back()
        except BobraiError:
            self._rests_until = time.monotonic() + self._lease_seconds
            raise

    async def _expire(self) -> None:
        for row in await workers.expire(self._database, restart_grace_seconds=self._lease_seconds):
            metrics.WORKERS_EXPIRED.inc()
            log.warning("worker.lost", worker_id=row["id"], host=row["host"], queues=row["queues"])

    async def _take_all_back(self) -> None:
        try:
            while len(await self._take_back()) == BATCH:
                pass
        except (StoreRejected, DatabaseUnavailable) as error:
            if not is_of_one_row(error):
                raise
            await self._take_back_one_by_one()
        else:
            self._refused.clear()

    async def _take_back_one_by_one(self) -> None:
        seen: set[int] = set()
        refused: set[int] = set()
        while lost := await workers.lost_tasks(self._database, list(seen), limit=BATCH):
            seen.update(lost)
            for task_id in lost:
                try:
                    await self._take_back([task_id])
                except (StoreRejected, DatabaseUnavailable) as error:
                    if not is_of_one_row(error):
                        raise
                    refused.add(task_id)
                    if task_id not in self._refused:
                        log.error("task.take_back_refused", task_id=task_id, error=str(error))  # noqa: TRY400 - no defect
        self._refused = refused

    async def _take_back(self, only: Sequence[int] | None = None) -> list[Record]:
        rows = await workers.take_back(self._database, limit=BATCH, only=only)
        for row in rows:
            _count(row["queue"], row["type"], row["status"])
            log.warning(
                "task.taken_back",
                task_id=row["id"],
                attempt=row["attempt"],
                type=row["type"],
                queue=row["queue"],
                status=row["status"],
                losses=row["losses"],
                request_id=row["request_id"],
            )
        return rows


def _count(queue: str, type_: str, status: str) -> None:
    metrics.TASKS_TAKEN_BACK.labels(queue, status).inc()
    metrics.TASK_LOSSES.labels(queue, type_, "worker_lost").inc()
    if status != TaskStatus.PENDING:
        metrics.TASKS_FINISHED.labels(queue, type_, status).inc()
