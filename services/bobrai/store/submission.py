"""Submissions become rows: tasks and their outbox rows in one commit. The API's hot path.

In: NewTask values. Out: ids, in order. What is due is then found by ``outbox``.
"""

from collections.abc import Sequence

from bobrai.domain.errors import DatabaseUnavailable, IdempotencyMismatch
from bobrai.domain.task import IdempotencyKey, NewTask
from bobrai.store.pool import ROUNDS, Executor
from bobrai.store.queries import statement
from bobrai.store.records import task_columns

_SUBMIT = statement("submit")
_SUBMIT_KEYED = statement("submit_keyed")
_LOOKUP = statement("idempotency_lookup")


async def submit(database: Executor, tasks: Sequence[NewTask]) -> list[int]:
    """Store tasks durably, all or none, and return their ids in order."""
    rows = await database.fetch(_SUBMIT, *task_columns(tasks))
    ids: list[int] = rows[0]["ids"]
    return ids


async def submit_keyed(database: Executor, tasks: Sequence[NewTask], key: IdempotencyKey) -> tuple[list[int], bool]:
    """Store one request's tasks under its key, or return what the first request with this key stored.

    Returns the ids and whether they are a replay of the first answer. Raises IdempotencyMismatch when the key was
    used with another body.
    """
    for _ in range(ROUNDS):
        rows = await database.fetch(
            _SUBMIT_KEYED, *task_columns(tasks), key.client_id, key.key, key.fingerprint, key.ttl_seconds
        )
        if rows:
            return rows[0]["ids"], False
        first = await lookup(database, key)
        if first is None:
            continue  # the first request's key expired between the two statements
        return first, True
    raise DatabaseUnavailable("a key is neither stored nor there: a trigger on idempotency_keys keeps it away")


async def lookup(database: Executor, key: IdempotencyKey) -> list[int] | None:
    """Return the ids that the first request with this key stored, or None when there was none.

    Raises IdempotencyMismatch when the key was used with another body.
    """
    rows = await database.fetch(_LOOKUP, key.client_id, key.key)
    if not rows:
        return None
    if rows[0]["fingerprint"] != key.fingerprint:
        raise IdempotencyMismatch("this Idempotency-Key was used with a different request body")
    ids: list[int] = rows[0]["ids"]
    return ids
