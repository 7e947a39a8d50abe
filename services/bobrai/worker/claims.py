"""Turns waiting hints into claims, as many in one statement as can be started now or within 20 ms.

In: hints of all queues, in turns. Out: claimed tasks, to the executor. A claim whose answer was lost may have been
committed: its hints are marked, and what a second claim finds stale among them is asked for.
"""

import asyncio
import contextvars
import time
from collections.abc import Callable, Mapping

from bobrai.domain.errors import DatabaseUnavailable, WorkerGone
from bobrai.domain.message import Hint
from bobrai.domain.task import Claim
from bobrai.runtime.checkpoint import checkpoint
from bobrai.runtime.outage import Outage
from bobrai.store import attempts, outbox
from bobrai.store.pool import Database
from bobrai.telemetry import logs, metrics
from bobrai.worker.executor import Executor
from bobrai.worker.intake import Intake
from bobrai.worker.lease import Lease
from bobrai.worker.limited import Limited

log = logs.get_logger(__name__)

MAX_BATCH = 500


class Claims:
    """The claiming of all queues: one statement at a time, so that batches form by themselves."""

    def __init__(
        self,
        database: Database,
        lease: Lease,
        executor: Executor,
        limited: Limited,
        room: Callable[[], int],
        on_gone: Callable[[int], None],
    ) -> None:
        self.intakes: dict[str, Intake] = {}
        self.unsure: set[Hint] = set()
        self.paused = False
        self._database = database
        self._lease = lease
        self._executor = executor
        self._limited = limited
        self._room = room
        self._on_gone = on_gone
        self._outage = Outage("claims")
        self._running: asyncio.Task[None] | None = None
        self._turn = 0
        self._alone = 0  # as many of the next hints are claimed one by one: one of them may have failed a batch
        self._batch_size = metrics.BATCH_SIZE.labels("claim")
        self._batch_seconds = metrics.BATCH_SECONDS.labels("claim")
        self._batch_failures = metrics.BATCH_FAILURES.labels("claim")

    def pump(self) -> None:
        """Claim soon, when there is something to claim and room for it."""
        if self._running is None and self._may_claim() and any(intake.waiting for intake in self.intakes.values()):
            # In a context of its own, whichever attempt's end has made room.
            self._running = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())

    def may_come(self, hint: Hint) -> bool:
        """Whether a claim of this hint may have been committed whose answer is still to come, or to be asked for."""
        return hint in self.unsure or any(intake.is_claiming(hint) for intake in self.intakes.values())

    async def stop(self) -> None:
        """Claim nothing more; returns when the claim under way is answered."""
        self.paused = True
        while self._running is not None:
            await asyncio.wait({self._running})

    def _may_claim(self) -> bool:
        return not self.paused and self._lease.worker_id is not None and self._room() > 0

    async def _run(self) -> None:
        try:
            while self._may_claim() and (batch := self._take(min(self._room(), MAX_BATCH))):
                pause = await self._claim(batch)
                if pause:
                    await asyncio.sleep(pause)
        finally:
            self._running = None
        self.pump()

    def _take(self, room: int) -> dict[Hint, Intake]:
        """Take hints of all queues, in turns, so that no queue starves another."""
        if self._alone > 0:
            self._alone -= 1
            room = 1
        waiting = [intake for intake in self.intakes.values() if intake.waiting]
        if len(waiting) == 1:
            return dict.fromkeys(waiting[0].take(room), waiting[0])
        batch: dict[Hint, Intake] = {}
        while waiting and room > 0:
            self._turn += 1
            share = max(1, room // len(waiting))
            intake = waiting[self._turn % len(waiting)]
            taken = intake.take(share)
            batch.update(dict.fromkeys(taken, intake))
            room -= len(taken)
            waiting = [intake for intake in waiting if intake.waiting]
        return batch

    async def _claim(self, batch: Mapping[Hint, Intake]) -> float:
        """Claim a batch; returns the seconds to wait before the next one."""
        worker_id = self._lease.worker_id
        if worker_id is None:
            _put_back(batch, batch)
            return 0.0
        started = time.perf_counter()
        limited = self._limited.may_hold(intake.queue for intake in batch.values())
        try:
            claims = await attempts.claim(self._database, worker_id, list(batch), may_be_limited=limited)
            self._outage.over()
        except WorkerGone:
            _put_back(batch, batch)
            self._on_gone(worker_id)
            return 0.0
        except Exception as error:  # noqa: BLE001 - whatever it is, the hints must not be forgotten
            return self._failed(batch, error)
        self._batch_size.observe(len(batch))
        self._batch_seconds.observe(time.perf_counter() - started)
        checkpoint("worker.claimed")
        stale = dict(batch)
        for claim in claims:
            stale.pop(Hint(claim.task_id, claim.attempt - 1), None)
        self._admit(claims, batch, worker_id)
        if limited and stale:
            try:  # what still waits was published before its limit: it goes to its lane
                await outbox.release_hints(self._database, list(stale))
            except Exception as error:  # noqa: BLE001 - as above
                return self._failed(stale, error)
        return await self._settle_stale(stale, worker_id) if stale else 0.0

    async def _settle_stale(self, stale: dict[Hint, Intake], worker_id: int) -> float:
        unsure = [hint for hint in stale if hint in self.unsure]
        if unsure:
            try:
                ours = await attempts.claimed(self._database, worker_id, unsure)
            except Exception as error:  # noqa: BLE001 - as above
                pause = self._failed({hint: stale.pop(hint) for hint in unsure}, error)
                self._settle(stale)
                return pause
            found = [claim for claim in ours if not self._executor.has(claim.task_id, claim.attempt)]
            taken = {Hint(claim.task_id, claim.attempt - 1): stale for claim in found}
            self._admit(found, stale, worker_id)
            stale = {hint: intake for hint, intake in stale.items() if hint not in taken}
        self._settle(stale)
        return 0.0

    def _settle(self, stale: Mapping[Hint, Intake]) -> None:
        for hint, intake in stale.items():
            self.unsure.discard(hint)
            intake.stale(hint)

    def _admit(self, claims: list[Claim], batch: Mapping[Hint, Intake], worker_id: int) -> None:
        if worker_id != self._lease.worker_id:
            # The lease was lost while the claim was under way: whoever reaps it has these tasks now.
            for claim in claims:
                hint = Hint(claim.task_id, claim.attempt - 1)
                batch[hint].claimed(hint).settle()
            return
        for claim in claims:
            hint = Hint(claim.task_id, claim.attempt - 1)
            self.unsure.discard(hint)
            self._executor.admit(claim, batch[hint].claimed(hint), worker_id)

    def _failed(self, batch: Mapping[Hint, Intake], error: Exception) -> float:
        self._batch_failures.inc()
        self.unsure.update(batch)
        _put_back(batch, batch)
        if isinstance(error, DatabaseUnavailable) and error.perhaps_one_row and len(batch) > 1:
            self._alone = len(batch)
        return self._outage.failed(error)


def _put_back(hints: Mapping[Hint, Intake], batch: Mapping[Hint, Intake]) -> None:
    for hint in hints:
        batch[hint].put_back([hint])
