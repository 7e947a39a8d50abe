"""What can be stored of an outcome that PostgreSQL refused, decided in one transaction.

In: the outcome, and a rule that makes it plainer. Out: the fullest form that is accepted. A refusal speaks of values
only when something plainer is accepted before it: else everything was refused, and may have ceased to be since.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from bobrai.domain.errors import ClaimLost, DatabaseUnavailable, StoreRejected
from bobrai.domain.task import NewTask, Outcome, OutcomeKind, TaskStatus
from bobrai.store import attempts, children
from bobrai.store.children import Parent
from bobrai.store.pool import rejections

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    from bobrai.store.pool import Record

_UNDO: Final = "ROLLBACK TO SAVEPOINT untouched"
Plainer = Callable[[Outcome, StoreRejected], Outcome | None]  # what to store in its place; None: nothing is left


class Stored(NamedTuple):
    """What was accepted, the status that it gave to the task, and what was refused before it, with the reasons."""

    outcome: Outcome
    status: str
    refusals: list[tuple[Outcome, StoreRejected]]


async def store(
    connection: PoolConnectionProxy[Record], worker_id: int, whole: Parent, error: StoreRejected, plainer: Plainer
) -> Stored:
    """Write an outcome that was refused with an error, and what it leaves, as fully as can be.

    It is done in the caller's transaction. Raises StoreRejected when nothing plainer is accepted, DatabaseUnavailable
    when a write changes nothing; other errors are the driver's.
    """
    first = plainer(whole.outcome, error)
    if first is None:
        raise error
    write = partial(_write, connection, worker_id, whole.children)
    # Else a deferred constraint would speak at the commit, which nothing plainer can follow.
    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT untouched")
    await _fullest(connection, write, first, plainer)
    await connection.execute(_UNDO)
    return await _fullest(connection, write, whole.outcome, plainer)


async def _fullest(
    connection: PoolConnectionProxy[Record],
    write: Callable[[Outcome], Awaitable[str]],
    outcome: Outcome,
    plainer: Plainer,
) -> Stored:
    refusals: list[tuple[Outcome, StoreRejected]] = []
    while True:
        try:
            with rejections():
                return Stored(outcome, await write(outcome), refusals)
        except StoreRejected as error:
            refusals.append((outcome, error))
            plain = plainer(outcome, error)
            if plain is None:
                raise
            outcome = plain
        await connection.execute(_UNDO)


async def _write(
    connection: PoolConnectionProxy[Record], worker_id: int, tasks: Sequence[NewTask], outcome: Outcome
) -> str:
    if outcome.kind is OutcomeKind.DONE:
        with suppress(ClaimLost):
            await children.complete_within(connection, worker_id, Parent(outcome, tasks))
            return TaskStatus.DONE.value
    elif accepted := await attempts.end(connection, worker_id, [outcome]):
        return accepted[outcome.task_id]
    raise DatabaseUnavailable("the write changed nothing, without an error", perhaps_one_row=True)
