"""Submissions become rows: tasks and their outbox rows in one commit. The API's hot path.

In: NewTask values. Out: ids, in order. What is due is then found by ``outbox``. Tasks of which there is one at a time
are stored by ``unique``.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bobrai.domain.errors import DatabaseUnavailable, IdempotencyMismatch
from bobrai.domain.task import IdempotencyKey, NewTask
from bobrai.store.pool import ROUNDS, Executor
from bobrai.store.queries import statement
from bobrai.store.records import task_columns

_SUBMIT = statement("submit")
_SUBMIT_KEYED = statement("submit_keyed")
_LOOKUP = statement("idempotency_lookup")


class Stored(NamedTuple):
    """What became of one request: ids in its order, and the places in it of those tasks that were there before."""

    ids: Sequence[int]
    duplicates: Sequence[int] = ()


async def submit(database: Executor, tasks: Sequence[NewTask]) -> list[int]:
    """Store tasks durably, all or none, and return their ids in order."""
    rows = await database.fetch(_SUBMIT, *task_columns(tasks))
    ids: list[int] = rows[0]["ids"]
    return ids


async def submit_keyed(database: Executor, tasks: Sequence[NewTask], key: IdempotencyKey) -> tuple[Stored, bool]:
    """Store one request's tasks under its key, or return what the first request with this key stored.

    Returns that and whether it is a replay of the first answer. Raises IdempotencyMismatch when the key was
    used with another body.
    """
    for _ in range(ROUNDS):
        rows = await database.fetch(
            _SUBMIT_KEYED, *task_columns(tasks), key.client_id, key.key, key.fingerprint, key.ttl_seconds
        )
        if rows:
            return Stored(rows[0]["ids"]), False
        first = await lookup(database, key)
        if first is None:
            continue  # the first request's key expired between the two statements
        return first, True
    raise DatabaseUnavailable("a key is neither stored nor there: a trigger on idempotency_keys keeps it away")


async def lookup(database: Executor, key: IdempotencyKey) -> Stored | None:
    """Return what the first request with this key stored, or None when there was none.

    Raises IdempotencyMismatch when the key was used with another body.
    """
    rows = await database.fetch(_LOOKUP, key.client_id, key.key)
    if not rows:
        return None
    if rows[0]["fingerprint"] != key.fingerprint:
        raise IdempotencyMismatch("this Idempotency-Key was used with a different request body")
    return _again(rows[0]["ids"], rows[0]["known_ids"])


def _again(ids: list[int], known: list[int] | None) -> Stored:
    # What is left of an earlier use of the key says nothing of these ids: tasks that were new have others.
    seen = set(known or ())
    duplicates = []
    for index, task_id in enumerate(ids):
        if task_id in seen:
            duplicates.append(index)
        seen.add(task_id)
    return Stored(ids, duplicates)
