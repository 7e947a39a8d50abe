"""Takes back what lost workers were running: only because a worker is gone, never because a task is old.

In: worker rows whose lease is over. Out: their tasks, pending again with a new outbox row, or failed with reason
`worker_lost`. While the database was away nobody could renew, so after a failed round the search rests for one lease.
"""

import time

from bobrai.domain.errors import BobraiError
from bobrai.domain.task import TaskStatus
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.loop import PeriodicLoop
from bobrai.settings import Settings
from bobrai.store import workers
from bobrai.store.pool import Database
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)

BATCH = 1000


class Reaper:
    """Looks for expired leases and for claims without a worker."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._lease_seconds = settings.worker.lease_seconds
        self._database = database
        self._rests_until = float("-inf")
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
            while len(await self._take_back()) == BATCH:
                pass
        except BobraiError:
            self._rests_until = time.monotonic() + self._lease_seconds
            raise

    async def _expire(self) -> None:
        for row in await workers.expire(self._database, restart_grace_seconds=self._lease_seconds):
            metrics.WORKERS_EXPIRED.inc()
            log.warning("worker.lost", worker_id=row["id"], host=row["host"], queues=row["queues"])

    async def _take_back(self) -> list[int]:
        rows = await workers.take_back(self._database, limit=BATCH)
        for row in rows:
            _count(row["queue"], row["type"], row["status"])
            log.warning(
                "task.taken_back",
                task_id=row["id"],
                attempt=row["attempt"],
                type=row["type"],
                queue=row["queue"],
                status=row["status"],
                request_id=row["request_id"],
            )
        return [row["id"] for row in rows]


def _count(queue: str, type_: str, status: str) -> None:
    metrics.TASKS_TAKEN_BACK.labels(queue, status).inc()
    if status == TaskStatus.PENDING:
        metrics.TASKS_RETRIED.labels(queue, type_, "worker_lost").inc()
    else:
        metrics.TASKS_FINISHED.labels(queue, type_, status).inc()
