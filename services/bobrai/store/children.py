"""Results that leave follow-up tasks: both are stored in one commit, or neither.

In: DONE outcomes, each with the tasks that it leaves. Out: the ids whose result was accepted, as ``attempts.complete``
has them; what was not accepted has left no task.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from bobrai.domain.errors import ClaimLost
from bobrai.domain.task import NewTask, Outcome
from bobrai.store import attempts, unique
from bobrai.store.pool import Executor, Transactional, column
from bobrai.store.queries import statement
from bobrai.store.records import task_columns

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    from bobrai.store.pool import Record

_COMPLETE = statement("complete_parents")


class Parent(NamedTuple):
    """A result, and the tasks that it leaves."""

    outcome: Outcome
    children: Sequence[NewTask]

    @property
    def is_plain(self) -> bool:
        """Whether none of its tasks is to be the only one of its kind."""
        return all(child.unique is None for child in self.children)


async def complete(database: Transactional, worker_id: int, parents: Sequence[Parent]) -> dict[int, Sequence[int]]:
    """Record results and store what they leave; returns the ids that were accepted.

    For each there are the places of those of its tasks that were there before, and so are not new.
    """
    plain = [parent for parent in parents if parent.is_plain]
    accepted: dict[int, Sequence[int]] = {}
    if plain:
        accepted |= dict.fromkeys(await _complete_plain(database, worker_id, plain), ())
    for parent in parents:
        if not parent.is_plain:
            stored = await unique.complete(database, worker_id, parent.outcome, parent.children)
            if stored is not None:
                accepted[parent.outcome.task_id] = stored.duplicates
    return accepted


async def complete_within(connection: "PoolConnectionProxy[Record]", worker_id: int, parent: Parent) -> Sequence[int]:
    """Do the same for one in the caller's transaction, which is to be rolled back after an error.

    Returns the places of tasks that were there before. Raises ClaimLost when the result is not accepted.
    """
    if not parent.is_plain:
        return (await unique.complete_within(connection, worker_id, parent.outcome, parent.children)).duplicates
    if parent.children:
        accepted = await _complete_plain(connection, worker_id, [parent])
    else:
        accepted = list(await attempts.complete(connection, worker_id, [parent.outcome]))
    if not accepted:
        raise ClaimLost("another attempt owns the task")
    return ()


async def _complete_plain(database: Executor, worker_id: int, parents: Sequence[Parent]) -> list[int]:
    ordered = sorted((parent.outcome for parent in parents), key=lambda outcome: outcome.task_id)
    rows = await database.fetch(
        _COMPLETE,
        worker_id,
        [outcome.task_id for outcome in ordered],
        [outcome.attempt for outcome in ordered],
        [outcome.result for outcome in ordered],
        [outcome.progress for outcome in ordered],
        *task_columns([child for parent in parents for child in parent.children]),
        [parent.outcome.task_id for parent in parents for _ in parent.children],
    )
    return column(rows, "id")
