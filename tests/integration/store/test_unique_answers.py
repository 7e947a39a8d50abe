"""Answers that are lost on the way, and those that are asked for again, under a key and without."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bobrai.domain.errors import DatabaseUnavailable, IdempotencyMismatch
from bobrai.store import unique
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import Database
from tests.integration.store.alike import alike, count, finished, key, one
from tests.integration.store.builders import (
    new_task,
    status,
)


async def test_a_replay_answers_as_the_first_did(patient: PatientDatabase, store: Database) -> None:
    there, _ = await one(patient, value=0)
    request = [alike(0), alike(1), new_task(), alike(1)]
    stored, replayed = await unique.submit_keyed(patient, request, key())
    assert (list(stored.duplicates), stored.ids[0], replayed) == ([0, 3], there, False)
    await finished(store, there)
    again, replayed = await unique.submit_keyed(patient, request, key())
    assert (list(again.ids), list(again.duplicates), replayed) == (list(stored.ids), [0, 3], True)
    with pytest.raises(IdempotencyMismatch):
        await unique.submit_keyed(patient, request, key(b"other"))
    assert await count(store) == 3


async def test_a_key_that_is_used_anew_says_nothing_of_its_first_use(patient: PatientDatabase, store: Database) -> None:
    there, _ = await one(patient)
    assert list((await unique.submit_keyed(patient, [alike()], key()))[0].duplicates) == [0]
    await store.fetch("UPDATE idempotency_keys SET expires_at = now()")
    await finished(store, there)
    stored, replayed = await unique.submit_keyed(patient, [alike()], key())
    assert (list(stored.duplicates), replayed) == ([], False)
    assert await unique.submit_keyed(patient, [alike()], key()) == (stored, True)


async def test_parallel_requests_under_one_key_store_one(patient: PatientDatabase, store: Database) -> None:
    answers = await asyncio.gather(*(unique.submit_keyed(patient, [alike(), new_task()], key()) for _ in range(20)))
    assert len({tuple(stored.ids) for stored, _ in answers}) == 1
    assert {tuple(stored.duplicates) for stored, _ in answers} == {()}
    assert sorted(replayed for _, replayed in answers) == [False] + [True] * 19
    assert await count(store) == 2


class Unsteady(Database):
    """A database whose connection is lost once, before a commit or after it."""

    def __init__(self, store: Database, *, committed: bool) -> None:
        self._store = store
        self._committed = committed
        self._steady = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Lose the first answer."""
        if self._steady:
            async with self._store.transaction() as connection:
                yield connection
            return
        self._steady = True
        async with self._store.transaction() as connection:
            yield connection if self._committed else _Lost(connection)
        raise DatabaseUnavailable("ConnectionDoesNotExistError 08003: connection was closed", "08003")

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Any]:
        """Run a statement."""
        return await self._store.fetch(query, *args, timeout=timeout)

    async def ping(self, *, writing: bool = False) -> None:
        """Be there."""


class _Lost:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._left = 1

    async def fetch(self, *args: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise DatabaseUnavailable("ConnectionDoesNotExistError 08003: connection was closed", "08003")
        return await self._connection.fetch(*args)


async def test_a_connection_that_is_lost_before_the_commit_is_waited_out(store: Database) -> None:
    unsteady = PatientDatabase(Unsteady(store, committed=False), 5.0)
    first, duplicate = await one(unsteady)
    assert (duplicate, await count(store), await count(store, "unique_tasks")) == (False, 1, 1)
    assert await status(store, first) == ("pending", 0)


async def test_a_commit_without_an_answer_is_not_tried_again_by_itself(store: Database) -> None:
    """Who tries again without a key is told of the task that is there; with a key, what the first was to be told."""
    unsteady = PatientDatabase(Unsteady(store, committed=True), 5.0)
    with pytest.raises(DatabaseUnavailable) as lost:
        await one(unsteady)
    assert not lost.value.without_effect
    (row,) = await store.fetch("SELECT id FROM tasks")
    assert await one(unsteady) == (row["id"], True)

    unsteady = PatientDatabase(Unsteady(store, committed=True), 5.0)
    with pytest.raises(DatabaseUnavailable):
        await unique.submit_keyed(unsteady, [alike(2)], key())
    stored, replayed = await unique.submit_keyed(unsteady, [alike(2)], key())
    assert (list(stored.duplicates), replayed) == ([], True)
    assert await count(store) == 2
