"""A short outage is waited out, a long one is told, and nothing is done twice on the way."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import pytest

from bobrai.domain.errors import DatabaseUnavailable
from bobrai.settings import DatabaseSettings
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import Database
from tests.support.counting import CountingDatabase
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually
from tests.support.tcp_proxy import TcpProxy

LONG = 60.0


@pytest.fixture
def proxy(database: OwnDatabase, tcp_proxy: Callable[[str, int], TcpProxy]) -> TcpProxy:
    """The way to this test's database."""
    parts = urlsplit(database.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return tcp_proxy(parts.hostname, parts.port)


@pytest.fixture
async def pool(database: OwnDatabase, proxy: TcpProxy) -> AsyncIterator[Database]:
    """A pool that goes that way."""
    url = proxy.url(database.url)
    pool = Database(DatabaseSettings(url=url, command_timeout_seconds=2.0, connect_timeout_seconds=1.0))  # type: ignore[arg-type]
    await pool.open()
    yield pool
    await pool.close()


@pytest.fixture
async def patient(pool: Database) -> AsyncIterator[PatientDatabase]:
    """One that waits for as long as a test may take."""
    patient = PatientDatabase(pool, LONG)
    yield patient
    await patient.close()


async def fails(pool: Database) -> bool:
    """Whether the database is found to be away."""
    try:
        await pool.ping()
    except DatabaseUnavailable:
        return True
    return False


async def test_calls_wait_for_a_database_that_is_away_and_are_answered_when_it_is_back(
    patient: PatientDatabase, pool: Database, proxy: TcpProxy
) -> None:
    proxy.refuse()
    await eventually(lambda: fails(pool))
    calls = [asyncio.create_task(patient.fetch("SELECT $1::int AS n", number)) for number in range(20)]
    _, waiting = await asyncio.wait(calls, timeout=1.0)
    assert len(waiting) == len(calls)
    proxy.pass_through()
    assert [rows[0]["n"] for rows in await asyncio.gather(*calls)] == list(range(20))


async def test_a_transaction_waits_at_its_beginning(patient: PatientDatabase, pool: Database, proxy: TcpProxy) -> None:
    async def two_statements() -> int:
        async with patient.transaction() as connection:
            await connection.execute("SET LOCAL work_mem = '5MB'")
            return int(await connection.fetchval("SELECT 7"))

    proxy.refuse()
    await eventually(lambda: fails(pool))
    call = asyncio.create_task(two_statements())
    assert (await asyncio.wait({call}, timeout=1.0))[1]
    proxy.pass_through()
    assert await call == 7


async def test_a_statement_that_may_have_been_carried_out_is_not_sent_again(
    patient: PatientDatabase, proxy: TcpProxy, database: OwnDatabase
) -> None:
    await database.execute("CREATE TABLE seen (n int)")
    await patient.fetch("INSERT INTO seen VALUES (1)")  # connects, and prepares it: the next one takes one round trip
    proxy.latency(0.7)
    call = asyncio.create_task(patient.fetch("INSERT INTO seen VALUES (1)"))

    async def stored() -> bool:
        return bool(await database.fetchval("SELECT count(*) = 2 FROM seen"))

    await eventually(stored)  # the answer is still on its way
    assert proxy.cut() > 0
    with pytest.raises(DatabaseUnavailable):
        await call
    proxy.latency(0)
    await patient.fetch("SELECT 1")
    assert await stored()


async def test_who_has_waited_in_vain_is_told_and_later_calls_fail_at_once(pool: Database, proxy: TcpProxy) -> None:
    seconds = 1.0
    patient = PatientDatabase(pool, seconds)
    proxy.refuse()
    await eventually(lambda: fails(pool))
    took = []
    for _ in range(4):
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await patient.fetch("SELECT 1")
        took.append(time.monotonic() - began)
    assert took[0] >= seconds
    assert min(took[1:]) < seconds / 2, took
    proxy.pass_through()
    await patient.fetch("SELECT 1")
    await patient.close()


async def test_a_refused_write_is_sent_again_once_the_database_takes_writes_and_not_before(
    database: OwnDatabase,
) -> None:
    """The server may be about to end: what it is sent then may be lost with it, nobody knows with which effect."""
    await database.execute("CREATE TABLE seen (n int)")
    name = await database.fetchval("SELECT current_database()")
    only_reads = f'ALTER DATABASE "{name}" SET default_transaction_read_only = '
    await database.execute(f"{only_reads}on")
    pool = CountingDatabase(DatabaseSettings(url=database.url), "INSERT")  # type: ignore[arg-type]
    await pool.open()
    patient = PatientDatabase(pool, LONG)
    try:
        call = asyncio.create_task(patient.fetch("INSERT INTO seen VALUES (1)"))
        assert (await asyncio.wait({call}, timeout=1.0))[1]
        assert pool.count == 1
        assert await patient.fetch("SELECT 1 AS one") == [(1,)], "who reads does not wait"
        await database.execute(f"BEGIN READ WRITE; {only_reads}off; COMMIT")
        await call
        assert pool.count == 2
    finally:
        await patient.close()
        await pool.close()


async def test_a_database_that_answers_and_still_refuses_is_not_asked_for_longer_than_patience_lasts(
    pool: Database, database: OwnDatabase
) -> None:
    """It only reads, as after a failover: a look finds it alive, again and again."""
    await database.execute("CREATE TABLE seen (n int)")
    name = await database.fetchval("SELECT current_database()")
    await database.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    patient = PatientDatabase(pool, 1.0)
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        await asyncio.wait_for(patient.fetch("INSERT INTO seen VALUES (1)"), 30)
    await patient.close()
