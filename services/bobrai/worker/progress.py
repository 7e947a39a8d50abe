"""Progress of running attempts, written together a few times per second however often handlers report.

In: reports from handlers, in any thread. Out: one statement per round; nothing when nobody reports. What is not written
when its attempt ends is taken by the outcome.
"""

import asyncio
import contextlib
import threading

from bobrai.domain.errors import DatabaseUnavailable, StoreRejected
from bobrai.runtime.outage import Outage
from bobrai.store import attempts
from bobrai.store.pool import Database
from bobrai.telemetry import logs
from bobrai.worker.lease import Lease

log = logs.get_logger(__name__)

ROUND_SECONDS = 0.25


class ProgressReports:
    """Keeps the latest report of each attempt until it is written."""

    def __init__(self, database: Database, lease: Lease) -> None:
        self._loop = asyncio.get_running_loop()
        self._database = database
        self._lease = lease
        self._outage = Outage("progress")
        self._latest: dict[tuple[int, int], str] = {}  # by task and attempt: one that is abandoned may go on reporting
        self._under_way: dict[tuple[int, int], str] = {}
        self._lock = threading.Lock()
        self._writing: asyncio.Task[None] | None = None

    def report(self, task_id: int, attempt: int, text: str) -> None:
        """Replace the task's unwritten report; may be called from any thread."""
        with self._lock:
            first = not self._latest
            self._latest[task_id, attempt] = text
        if first:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the attempt is over
                self._loop.call_soon_threadsafe(self._wake)

    def take(self, task_id: int, attempt: int) -> str | None:
        """Return the attempt's last report if it may not be written, and leave its writing to the caller."""
        if not self._latest and not self._under_way:
            return None
        with self._lock:
            latest = self._latest.pop((task_id, attempt), None)
        return self._under_way.get((task_id, attempt)) if latest is None else latest

    def _wake(self) -> None:
        if self._writing is None and self._latest:
            self._writing = self._loop.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._latest:
                with self._lock:
                    self._under_way, self._latest = self._latest, {}
                pause = await self._write_once([(*whose, text) for whose, text in self._under_way.items()])
                self._under_way = {}
                await asyncio.sleep(pause)
        finally:
            self._writing = None
            self._wake()

    async def _write_once(self, reports: list[tuple[int, int, str]]) -> float:
        if self._lease.worker_id is None:
            return ROUND_SECONDS
        try:
            await attempts.show_progress(self._database, self._lease.worker_id, reports)
        except (StoreRejected, DatabaseUnavailable) as error:
            if len(reports) > 1 and (isinstance(error, StoreRejected) or error.perhaps_one_row):
                for report in reports:
                    await self._write_once([report])
            elif isinstance(error, StoreRejected):
                log.warning("task.progress_refused", task_id=reports[0][0], error=str(error))
            else:
                with self._lock:
                    for task_id, attempt, text in reports:
                        self._latest.setdefault((task_id, attempt), text)
                return max(ROUND_SECONDS, self._outage.failed(error))
        else:
            self._outage.over()
        return ROUND_SECONDS
