"""What the proof of the store shares: pools on a database of the test's own, directly and through PgBouncer."""

from collections.abc import AsyncIterator

import pytest

from bobrai.settings import load
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import Database
from tests.integration.store.history import History
from tests.support.databases import Database as OwnDatabase


async def opened(url: str, pool_size: int = 8) -> Database:
    """An open pool; the caller closes it."""
    store = Database(load(database={"url": url, "direct_url": url}).database, pool_size=pool_size, name="bobrai-test")
    await store.open()
    return store


@pytest.fixture
async def store(database: OwnDatabase) -> AsyncIterator[Database]:
    """The product's pool, directly on PostgreSQL."""
    store = await opened(database.url)
    yield store
    await store.close()


@pytest.fixture
async def patient(store: Database) -> AsyncIterator[PatientDatabase]:
    """The same, as the API has it."""
    patient = PatientDatabase(store, 5.0)
    yield patient
    await patient.close()


@pytest.fixture(params=["direct", "pooled"])
async def either_way(database: OwnDatabase, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """The product's pool, directly on PostgreSQL and through PgBouncer in transaction mode."""
    store = await opened(database.url if request.param == "direct" else database.pooled_url)
    yield store
    await store.close()


@pytest.fixture
async def history(store: Database) -> AsyncIterator[History]:
    """What the statements did to every task; at the end no transition may lie outside of the table of transitions."""
    history = History(store)
    await history.install()
    yield history
    await history.check()
