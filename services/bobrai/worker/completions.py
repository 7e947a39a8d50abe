"""Writes outcomes, many in one statement, until they are written: no answer of the database loses one.

In: outcomes from the executor. Out: rows, fenced by attempt and worker; then the hint of the task is settled. A write
that finds no claim is asked for before it counts as a lost one: an earlier try may have been committed unanswered. What
is refused for its values alone is stored without them (``store.refused``). What cannot be written alone either is tried
on, and in the end said to ``on_unwritable``, which ends the lease.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from msgspec import structs

from bobrai.domain.errors import DatabaseUnavailable, StoreRejected
from bobrai.domain.task import Outcome, OutcomeKind, TaskStatus
from bobrai.runtime.checkpoint import checkpoint
from bobrai.runtime.group_commit import GroupCommit
from bobrai.runtime.outage import Outage, pause_after
from bobrai.store import attempts, children, refused
from bobrai.store.children import Parent
from bobrai.store.pool import Database
from bobrai.telemetry import logs, metrics
from bobrai.worker import meters, outcomes, telling, unanswered
from bobrai.worker.attempt import Claimed
from bobrai.worker.children import ChildRefused, Children, count, weight
from bobrai.worker.lease import Lease
from bobrai.worker.limited import Limited

log = logs.get_logger(__name__)

_NEVER_REFUSED = 1_000_000_000
PATIENCE_SECONDS = 60.0  # with an outcome that fails alone while others are written
LONG_PATIENCE_SECONDS = 300.0  # the same when there are no others, so that it may be the table's trouble
Write = Callable[[int, "Sequence[_Item]"], Awaitable[dict[int, str]]]  # the new status of each accepted id
_LOST: Final = ""  # the answer to a write whose claim was no longer held
_TOUCHED_NOTHING: Final = "the write changed nothing, without an error: a trigger or a rule on the table keeps it away"


class _Item(NamedTuple):
    attempt: Claimed
    outcome: Outcome


class _Way:
    """How outcomes of a kind are written, many in one statement."""

    def __init__(
        self,
        name: str,
        write: Write,
        flush: Callable[[Write, Sequence[_Item]], Awaitable[list[str]]],
        weight_of: Callable[[_Item], int] | None = None,
    ) -> None:
        self.write = write
        self.commits: GroupCommit[_Item, str] = GroupCommit(
            name, partial(flush, write), max_waiting=_NEVER_REFUSED, repeatable=True, weight=weight_of
        )


class Completions:
    """The way of outcomes into the database.

    ``on_settled`` hears of every attempt that needs nothing more, ``on_unwritable`` of a worker's id whose lease must
    end, so that the reaper takes a task whose outcome cannot be written.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        limited: Limited,
        children_: Children,
        on_settled: Callable[[Claimed], None],
        on_unwritable: Callable[[int], None],
    ) -> None:
        self._database = database
        self._lease = lease
        self._limited = limited
        self._children = children_
        self._on_settled = on_settled
        self._on_unwritable = on_unwritable
        self._outage = Outage("completions")
        self._written_at = time.monotonic()
        self._insisting: set[asyncio.Task[None]] = set()
        self._results = _Way("complete", self._write_results, self._flush)
        self._parents = _Way("complete_parents", self._write_parents, self._flush, lambda item: weight(item.outcome))
        self._ends = _Way("end", self._write_ends, self._flush)

    def _way_of(self, outcome: Outcome) -> "_Way":
        if outcome.kind is not OutcomeKind.DONE:
            return self._ends
        return self._parents if outcome.children else self._results

    def write(self, attempt: Claimed, outcome: Outcome) -> None:
        """Write an outcome soon; returns at once."""
        future = self._way_of(outcome).commits.put(_Item(attempt, outcome))
        future.add_done_callback(partial(self._answered, attempt, outcome))

    def written(self, attempt: Claimed, outcome: Outcome, status: str) -> None:
        """Note that an outcome is committed, and the status that it gave to the task."""
        claim = attempt.claim
        if status not in {outcome.kind.value, TaskStatus.PENDING.value}:  # the row had the last word
            outcome = structs.replace(outcome, kind=OutcomeKind(status))
        age_seconds = claim.age_seconds + time.monotonic() - attempt.claimed_at
        meters.of(claim.queue, claim.type).written(outcome, status, age_seconds, attempt.trace_id)
        checkpoint("worker.completed")
        self._limited.ended(claim.queue, claim.type)
        self._on_settled(attempt)
        telling.ended(attempt, outcome)

    def lost(self, attempt: Claimed) -> None:
        """Note that the claim was no longer held: the outcome is dropped, whoever owns the task now writes another."""
        metrics.CLAIMS_LOST.inc()
        log.warning("claim.lost", worker_id=attempt.worker_id, **attempt.fields())
        self._on_settled(attempt)

    async def is_settled(self, worker_id: int, outcome: Outcome) -> bool:
        """Return whether an outcome whose commit was not answered is there; waits while the database is away."""
        return await unanswered.is_settled(self._database, self._lease, self._outage, worker_id, outcome)

    def _answered(self, attempt: Claimed, outcome: Outcome, future: "asyncio.Future[str]") -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._conclude(attempt, outcome, future.result())
            return
        if not isinstance(error, DatabaseUnavailable | StoreRejected):
            log.error("task.outcome_failed", exc_info=error, **attempt.fields())
        task = asyncio.create_task(self._write_alone(attempt, outcome))
        self._insisting.add(task)
        task.add_done_callback(self._insisting.discard)

    def _conclude(self, attempt: Claimed, outcome: Outcome, status: str) -> None:
        if status:
            self.written(attempt, outcome, status)
        else:
            self.lost(attempt)

    async def _write_alone(self, attempt: Claimed, outcome: Outcome) -> None:
        """Write one outcome that failed by itself, without holding up others, for as long as its lease lives."""
        since, failures, given_up = time.monotonic(), 0, False
        while True:
            failures += 1
            await asyncio.sleep(pause_after(failures))
            try:
                written, status = await self._write_once(attempt, outcome)
            except Exception as error:  # noqa: BLE001 - whatever it is, the outcome must not be forgotten
                failure = error
                if isinstance(error, StoreRejected) and failures == 1:
                    log.warning("task.outcome_refused", error=str(error), **attempt.fields())
                if isinstance(error, DatabaseUnavailable) and not error.perhaps_one_row:
                    since = time.monotonic()  # nothing can be written now, so this says nothing of the outcome
            else:
                self._conclude(attempt, written, status)
                return
            patience = PATIENCE_SECONDS if self._written_at > since else LONG_PATIENCE_SECONDS
            if not given_up and time.monotonic() - since > patience:
                given_up = True
                log.error("task.outcome_unwritten", error=str(failure), **attempt.fields())
                self._on_unwritable(attempt.worker_id)

    async def _write_once(self, attempt: Claimed, outcome: Outcome) -> tuple[Outcome, str]:
        """Write the outcome or, where its values are refused, a plainer one; returns which, and its status."""
        try:
            [status] = await self._write(self._way_of(outcome).write, [_Item(attempt, outcome)])
        except ChildRefused as error:  # as if the handler had raised it
            return await self._write_once(attempt, outcomes.raised(attempt.claim, error))
        except StoreRejected as error:
            return await self._write_plainer(attempt, outcome, error)
        return outcome, status

    async def _write_plainer(self, attempt: Claimed, outcome: Outcome, error: StoreRejected) -> tuple[Outcome, str]:
        stored: refused.Stored | None = None
        parent = await self._parent(attempt, outcome)
        try:
            async with self._database.transaction() as connection:
                stored = await refused.store(connection, attempt.worker_id, parent, error, outcomes.plainer)
        except DatabaseUnavailable:
            # The commit may have taken place; the whole outcome would be asked for in vain.
            if stored is None or not await self.is_settled(attempt.worker_id, stored.outcome):
                raise
        self._written_at = time.monotonic()
        for values, reason in stored.refusals:
            telling.refused(attempt, values, reason)
        return stored.outcome, stored.status

    async def _flush(self, write: Write, items: Sequence[_Item]) -> list[str]:
        """Write until it is written, refused, to be tried one by one, or until the worker that claimed is gone."""
        failures = 0
        while True:
            try:
                statuses = await self._write(write, items)
            except DatabaseUnavailable as error:
                pause = self._outage.failed(error)
                failures += 1
                # Without an answer, a second time in a row: rather one row's lock than a short outage.
                if error.perhaps_one_row and (error.sqlstate or failures > 1):
                    raise
                await asyncio.sleep(pause)
            else:
                self._outage.over()
                return statuses

    async def _write(self, write: Write, items: Sequence[_Item]) -> list[str]:
        """Write once; the answer is each item's status, or that its claim is no longer held."""
        worker_id = self._lease.worker_id
        ours = [item for item in items if item.attempt.worker_id == worker_id]
        if worker_id is None or not ours:
            return [_LOST] * len(items)
        accepted = await write(worker_id, ours)
        missing = [item.outcome for item in ours if item.outcome.task_id not in accepted]
        if missing:
            accepted |= await attempts.settled(self._database, worker_id, missing)
            if TaskStatus.PROCESSING.value in accepted.values():
                raise DatabaseUnavailable(_TOUCHED_NOTHING, perhaps_one_row=True)
        self._written_at = time.monotonic()
        return [
            accepted.get(outcome.task_id, _LOST) if attempt.worker_id == worker_id else _LOST
            for attempt, outcome in items
        ]

    async def _write_results(self, worker_id: int, done: Sequence[_Item]) -> dict[int, str]:
        accepted = await attempts.complete(self._database, worker_id, [item.outcome for item in done])
        return dict.fromkeys(accepted, TaskStatus.DONE.value)

    async def _write_parents(self, worker_id: int, done: Sequence[_Item]) -> dict[int, str]:
        parents = [await self._parent(*item) for item in done]
        accepted = await children.complete(self._database, worker_id, parents)
        for parent in parents:
            if parent.outcome.task_id in accepted:
                count(parent, accepted[parent.outcome.task_id])
        return dict.fromkeys(accepted, TaskStatus.DONE.value)

    async def _write_ends(self, worker_id: int, ends: Sequence[_Item]) -> dict[int, str]:
        return await attempts.end(self._database, worker_id, [item.outcome for item in ends])

    async def _parent(self, attempt: Claimed, outcome: Outcome) -> Parent:
        if not outcome.children:
            return Parent(outcome, ())
        return await self._children.of(outcome, attempt.claim, attempt.trace_context)
