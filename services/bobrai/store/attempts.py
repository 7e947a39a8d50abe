"""Every write of an attempt: claim, complete, end, progress. Each after the claim is fenced by attempt and worker.

In: hints and outcomes, many at once, from the worker. Out: claims, and the ids whose write was accepted; a missing id
means that the claim was lost and its outcome must be dropped. Rows are touched in the order of their ids, so that two
batches cannot deadlock.
"""

from collections.abc import Collection, Sequence

from bobrai.domain import limits
from bobrai.domain.errors import WorkerGone
from bobrai.domain.message import Hint
from bobrai.domain.task import Claim, Outcome
from bobrai.store.pool import Executor, Record
from bobrai.store.queries import statement
from bobrai.store.records import error_text, retry_value

_CLAIM = statement("claim")
_CLAIM_ADMITTED = statement("claim_admitted")
_CLAIMED = statement("claimed")
_COMPLETE = statement("complete")
_END = statement("end_attempts")
_SETTLED = statement("settled")
_ORPHANS = statement("orphans")
_PROGRESS = statement("progress")


async def claim(
    database: Executor, worker_id: int, hints: Sequence[Hint], *, may_be_limited: bool = False
) -> list[Claim]:
    """Claim what the hints name; a stale hint brings no claim, nor, if any may be limited, one without admission.

    Raises WorkerGone when the worker has no row any more: then nothing was claimed.
    """
    ordered = sorted(set(hints))
    claiming = _CLAIM_ADMITTED if may_be_limited else _CLAIM
    rows = await database.fetch(claiming, worker_id, [hint[0] for hint in ordered], [hint[1] for hint in ordered])
    if not rows:
        raise WorkerGone(f"worker {worker_id} has no row")
    return [_claim_value(row) for row in rows if row[0] is not None]


async def claimed(database: Executor, worker_id: int, hints: Sequence[Hint]) -> list[Claim]:
    """Return the claims on these hints that this worker already holds.

    Asked after a claim whose answer was lost with the connection, for hints that a second claim found stale.
    """
    rows = await database.fetch(_CLAIMED, worker_id, [hint[0] for hint in hints], [hint[1] for hint in hints])
    return [_claim_value(row) for row in rows]


def _claim_value(row: Record) -> Claim:
    return Claim(
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], retry_value(row[8]), row[9], row[10],
        row[11], row[12], row[13], row[14], row[15], row[16], row[17],
    )  # fmt: skip


async def complete(database: Executor, worker_id: int, outcomes: Sequence[Outcome]) -> set[int]:
    """Record the results of DONE outcomes; returns the ids that were accepted."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.task_id)
    rows = await database.fetch(
        _COMPLETE,
        worker_id,
        [outcome.task_id for outcome in ordered],
        [outcome.attempt for outcome in ordered],
        [outcome.result for outcome in ordered],
        [outcome.progress for outcome in ordered],
    )
    return {row[0] for row in rows}


async def end(database: Executor, worker_id: int, outcomes: Sequence[Outcome]) -> dict[int, str]:
    """Record every other kind of outcome; returns the new status of each accepted id."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.task_id)
    rows = await database.fetch(
        _END,
        worker_id,
        [outcome.task_id for outcome in ordered],
        [outcome.attempt for outcome in ordered],
        [outcome.kind.value for outcome in ordered],
        [outcome.error and error_text(outcome.error, outcome.attempt) for outcome in ordered],
        [outcome.delay_seconds for outcome in ordered],
        [outcome.progress for outcome in ordered],
        limits.MAX_ERRORS_KEPT,
    )
    return {row[0]: row[1] for row in rows}


async def settled(database: Executor, worker_id: int, outcomes: Sequence[Outcome]) -> dict[int, str]:
    """Return the outcomes that are already written: the status that each gave to its task, by id.

    Asked after a write whose answer was lost with the connection: it may have been committed, or be about to. A task
    that this attempt still holds has the status ``processing``: its outcome is not written, and can be.
    """
    rows = await database.fetch(
        _SETTLED,
        worker_id,
        [outcome.task_id for outcome in outcomes],
        [outcome.attempt for outcome in outcomes],
        [outcome.kind.value for outcome in outcomes],
    )
    return {row[0]: row[1] for row in rows}


async def orphans(database: Executor, worker_id: int, held: Collection[int]) -> set[tuple[int, int]]:
    """Return tasks, with their attempts, that are claimed for this worker and not among those that it holds."""
    rows = await database.fetch(_ORPHANS, worker_id, list(held))
    return {(row[0], row[1]) for row in rows}


async def show_progress(database: Executor, worker_id: int, reports: Sequence[tuple[int, int, str]]) -> None:
    """Store the latest progress (task id, attempt, JSON text) of running attempts."""
    ordered = sorted(reports)
    await database.fetch(
        _PROGRESS,
        worker_id,
        [report[0] for report in ordered],
        [report[1] for report in ordered],
        [report[2] for report in ordered],
    )
