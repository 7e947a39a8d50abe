"""Removes finished tasks after their retention time, and idempotency keys, ended API keys and the audit after theirs.

So it does with the notes of which tasks are the only ones of their kind, once they are so no more.

In: rows past their time. Out: nothing. Small batches with pauses between them, so that a million rows that fall due at
once take neither locks nor the disk away from the living.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Final

from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.loop import PeriodicLoop
from bobrai.settings import Settings
from bobrai.store import admissions, audit, keys, tasks, unique
from bobrai.store.pool import Database
from bobrai.telemetry import metrics

BATCH: Final = 1000
REST: Final = 4.0  # pause after a batch, as a multiple of the time that the batch took
_KEYS_KEPT_SECONDS: Final = 30 * 86_400.0  # after their end, for whoever asks what they were
LEAST_PAUSE_SECONDS: Final = 0.01


class Pruner:
    """Removes what is past its time."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._retention_seconds = settings.dispatcher.retention_seconds
        self._audit_retention_seconds = settings.dispatcher.audit_retention_seconds
        self._database = database
        self._stop = Stop()
        self._loop = PeriodicLoop("pruner", settings.dispatcher.prune_seconds, self.run_once)

    async def run(self, stop: Stop) -> None:
        """Prune until the process stops; the batch under way is finished."""
        self._stop = stop
        await self._loop.run(stop)

    async def run_once(self) -> None:
        """Remove everything that is past its time now; raises DatabaseUnavailable."""
        await self._batches(self._prune_tasks)
        await self._batches(lambda: tasks.prune_idempotency_keys(self._database, limit=BATCH))
        await self._batches(lambda: admissions.prune_buckets(self._database, limit=BATCH))
        await self._batches(lambda: unique.prune(self._database, limit=BATCH))
        await keys.prune(self._database, retention_seconds=_KEYS_KEPT_SECONDS)
        if self._audit_retention_seconds > 0:
            await self._batches(self._prune_audit)

    async def _prune_tasks(self) -> int:
        pruned = await tasks.prune(self._database, retention_seconds=self._retention_seconds, limit=BATCH)
        metrics.TASKS_PRUNED.inc(pruned)
        return pruned

    async def _prune_audit(self) -> int:
        return await audit.prune(self._database, retention_seconds=self._audit_retention_seconds, limit=BATCH)

    async def _batches(self, prune: Callable[[], Awaitable[int]]) -> None:
        while not self._stop.is_set():
            started = time.perf_counter()
            if await prune() < BATCH:
                return
            await self._stop.wait_for(max((time.perf_counter() - started) * REST, LEAST_PAUSE_SECONDS))
