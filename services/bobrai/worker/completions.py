"""Writes outcomes, many in one statement, until they are written: neither an outage nor a bad result loses one.

In: outcomes from the executor. Out: rows, fenced by attempt and worker; then the hint of the task is settled. A write
whose answer was lost is asked for before it counts as a lost claim.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

from bobrai.domain.errors import StoreRejected, Unavailable
from bobrai.domain.task import Outcome, OutcomeKind, TaskStatus
from bobrai.runtime.checkpoint import checkpoint
from bobrai.runtime.group_commit import GroupCommit
from bobrai.store import attempts
from bobrai.store.pool import Database
from bobrai.telemetry import logs, metrics
from bobrai.worker import meters, outcomes
from bobrai.worker.attempt import Claimed
from bobrai.worker.lease import Lease
from bobrai.worker.outage import Outage

log = logs.get_logger(__name__)

_NEVER_REFUSED = 1_000_000_000
Write = Callable[[int, Sequence[Outcome]], Awaitable[dict[int, str]]]  # the new status of each accepted id
_LOST: Final = ""  # the answer to a write whose claim was no longer held


class _Item(NamedTuple):
    worker_id: int
    outcome: Outcome


class Completions:
    """The way of outcomes into the database. ``on_settled`` hears of every attempt that needs nothing more."""

    def __init__(self, database: Database, lease: Lease, on_settled: Callable[[Claimed], None]) -> None:
        self._database = database
        self._lease = lease
        self._on_settled = on_settled
        self._outage = Outage("completions")
        self._results = GroupCommit("complete", partial(self._flush, self._write_results), max_waiting=_NEVER_REFUSED)
        self._ends = GroupCommit("end", partial(self._flush, self._write_ends), max_waiting=_NEVER_REFUSED)

    def write(self, attempt: Claimed, outcome: Outcome) -> None:
        """Write an outcome soon; returns at once."""
        group = self._results if outcome.kind is OutcomeKind.DONE else self._ends
        future = group.put(_Item(attempt.worker_id, outcome))
        future.add_done_callback(partial(self._answered, attempt, outcome))

    def written(self, attempt: Claimed, outcome: Outcome, status: str) -> None:
        """Note that an outcome is committed, and the status that it gave to the task."""
        claim = attempt.claim
        age_seconds = claim.age_seconds + time.monotonic() - attempt.claimed_at
        meters.of(claim.queue, claim.type).written(outcome, status, age_seconds, attempt.trace_id)
        checkpoint("worker.completed")
        self._on_settled(attempt)

    def lost(self, attempt: Claimed) -> None:
        """Note that the claim was no longer held: the outcome is dropped, whoever owns the task now writes another."""
        metrics.CLAIMS_LOST.inc()
        log.warning("claim.lost", worker_id=attempt.worker_id, **attempt.fields())
        self._on_settled(attempt)

    async def is_settled(self, worker_id: int, outcome: Outcome) -> bool:
        """Return whether an outcome whose commit was not answered is there; waits while the database is away."""
        while True:
            try:
                found = await attempts.settled(self._database, worker_id, [outcome])
            except Unavailable as error:
                await asyncio.sleep(self._outage.failed(error))
            else:
                self._outage.over()
                return bool(found)

    def _answered(self, attempt: Claimed, outcome: Outcome, future: "asyncio.Future[str]") -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            if status := future.result():
                self.written(attempt, outcome, status)
            else:
                self.lost(attempt)
        elif isinstance(error, StoreRejected) and outcome.kind is OutcomeKind.DONE:
            log.warning("task.result_refused", **attempt.fields())
            self.write(attempt, outcomes.refused_result(outcome, error))
        elif isinstance(error, StoreRejected) and outcome.error is not None:
            # What cannot be stored of the error must not keep the attempt from ending.
            log.error("task.error_refused", error=str(error), **attempt.fields())
            plain = replace(outcome.error, type="Error", message="the error could not be stored", traceback="")
            last = outcome.error == plain
            self.write(attempt, replace(outcome, error=None if last else plain))
        else:
            log.error("task.outcome_refused", exc_info=error, **attempt.fields())
            self._on_settled(attempt)

    async def _flush(self, write: Write, items: Sequence[_Item]) -> list[str]:
        """Write until it is written, or until the worker that claimed is gone."""
        unsure = False
        while True:
            worker_id = self._lease.worker_id
            ours = [item.outcome for item in items if item.worker_id == worker_id]
            if worker_id is None or not ours:
                return [_LOST] * len(items)
            try:
                accepted = await write(worker_id, ours)
                missing = [outcome for outcome in ours if outcome.task_id not in accepted] if unsure else []
                if missing:  # this write came second, and the first one may have been committed
                    accepted |= await attempts.settled(self._database, worker_id, missing)
            except Unavailable as error:
                unsure = True
                await asyncio.sleep(self._outage.failed(error))
            else:
                self._outage.over()
                return [
                    accepted.get(item.outcome.task_id, _LOST) if item.worker_id == worker_id else _LOST
                    for item in items
                ]

    async def _write_results(self, worker_id: int, done: Sequence[Outcome]) -> dict[int, str]:
        return dict.fromkeys(await attempts.complete(self._database, worker_id, done), TaskStatus.DONE.value)

    async def _write_ends(self, worker_id: int, ends: Sequence[Outcome]) -> dict[int, str]:
        return await attempts.end(self._database, worker_id, ends)
