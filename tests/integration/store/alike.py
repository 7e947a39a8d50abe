"""Tasks of which there is one at a time, for the proof of the store."""

import hashlib
import json
from typing import Any

from bobrai.domain.task import IdempotencyKey, NewTask, OutcomeKind
from bobrai.domain.unique import Held
from bobrai.store import attempts, unique
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import Database
from bobrai.store.submission import Stored
from tests.integration.store.builders import claimed, new_task, outcome, worker


def alike(
    value: object = 1,
    *,
    while_: Any = "unfinished",
    for_seconds: float | None = None,
    replace: bool = False,
    **fields: Any,
) -> NewTask:
    """A task of which there is one at a time for each value."""
    digest = hashlib.sha256(json.dumps(value).encode()).digest()
    return new_task(unique=Held(digest, while_, for_seconds, replace), **fields)


async def submit(patient: PatientDatabase, *items: NewTask) -> Stored:
    """Submit one request."""
    return (await unique.submit(patient, [items]))[0]


async def one(patient: PatientDatabase, **fields: Any) -> tuple[int, bool]:
    """Submit one task; returns its id and whether it is a duplicate."""
    stored = await submit(patient, alike(**fields))
    return stored.ids[0], bool(stored.duplicates)


async def count(store: Database, table: str = "tasks") -> int:
    """How many rows a table has."""
    return int((await store.fetch(f"SELECT count(*) AS n FROM {table}"))[0]["n"])


async def finished(store: Database, task_id: int, kind: OutcomeKind = OutcomeKind.DONE) -> None:
    """Run a task to the end of an attempt."""
    me = await worker(store)
    claim = await claimed(store, me, task_id)
    if kind is OutcomeKind.DONE:
        await attempts.complete(store, me, [outcome(claim, kind)])
    else:
        await attempts.end(store, me, [outcome(claim, kind)])


def key(fingerprint: bytes = b"body", *, name: str = "k", ttl_seconds: float = 60.0) -> IdempotencyKey:
    """An idempotency key."""
    return IdempotencyKey(key=name, fingerprint=fingerprint, ttl_seconds=ttl_seconds)
