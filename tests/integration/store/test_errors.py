"""What PostgreSQL answers, and whose fault that is: only values are refused, everything else is tried again."""

import asyncio
import contextlib
from urllib.parse import urlsplit

import asyncpg
import pytest

from bobrai.domain.errors import DatabaseUnavailable, SchemaMissing, StoreRejected
from bobrai.store.pool import Database, driver_errors
from tests.integration.store.builders import submitted_one
from tests.integration.store.conftest import opened
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually
from tests.support.pgbouncer import PgBouncerServer
from tests.support.postgres import PostgresServer

KNOWN = sorted({kind.sqlstate for kind in vars(asyncpg.exceptions).values() if getattr(kind, "sqlstate", None)})


async def answer_to(store: Database, sqlstate: str) -> Exception:
    """What a statement raises to which the server answers with this."""
    with pytest.raises((DatabaseUnavailable, StoreRejected)) as raised:
        await store.fetch(f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{sqlstate}'; END $$")
    return raised.value


async def test_only_values_are_refused_and_all_else_is_tried_again(store: Database) -> None:
    assert len(KNOWN) > 200
    for sqlstate in [*(each for each in KNOWN if not each.startswith(("00", "01", "02", "03"))), "QQ123", "22QQQ"]:
        error = await answer_to(store, sqlstate)
        of_values = sqlstate[:2] in {"22", "23", "54"} and sqlstate != "2200H"
        assert isinstance(error, StoreRejected) is of_values, sqlstate
        assert sqlstate in str(error)
        if isinstance(error, DatabaseUnavailable):
            assert error.sqlstate == sqlstate
            assert isinstance(error, SchemaMissing) is (sqlstate in {"42P01", "42703", "42883", "3F000"})


async def test_what_the_driver_cannot_encode_is_the_values_fault(store: Database) -> None:
    for query, value in (("SELECT $1::smallint", 40_000), ("SELECT $1::text", "\ud800"), ("SELECT $1::int[]", ["a"])):
        with pytest.raises(StoreRejected):
            await store.fetch(query, value)


async def test_keys_and_sequences_are_the_servers_whatever_they_are_called(store: Database) -> None:
    await store.fetch("ALTER INDEX tasks_pkey RENAME TO by_a_dba")
    await submitted_one(store)
    await store.fetch("SELECT setval('tasks_id_seq', 1, false)")
    with pytest.raises(DatabaseUnavailable, match="23505"):
        await submitted_one(store)
    await store.fetch("ALTER SEQUENCE tasks_id_seq MAXVALUE 10")
    await store.fetch("SELECT setval('tasks_id_seq', 10)")
    with pytest.raises(DatabaseUnavailable, match="2200H"):
        await submitted_one(store)


async def test_a_unique_index_of_somebodys_own_is_about_values(store: Database) -> None:
    await store.fetch("CREATE UNIQUE INDEX one_order ON tasks ((payload ->> 'order'))")
    await submitted_one(store, payload='{"order": 1}')
    with pytest.raises(StoreRejected, match="23505"):
        await submitted_one(store, payload='{"order": 1}')


def test_a_server_that_has_used_up_its_transaction_ids_is_away() -> None:
    """It answers with the code of a value that is too large."""
    for function, kind in (("GetNewTransactionId", DatabaseUnavailable), ("index_form_tuple", StoreRejected)):
        fields = {"S": "ERROR", "C": "54000", "M": "keine weiteren Kommandos", "R": function}
        with pytest.raises(kind), driver_errors():
            raise asyncpg.PostgresError.new(fields)


async def test_details_never_reach_a_message(store: Database) -> None:
    for sqlstate in ("P0001", "23505"):
        with pytest.raises((DatabaseUnavailable, StoreRejected)) as raised:
            await store.fetch(
                f"DO $$ BEGIN RAISE EXCEPTION 'so' USING ERRCODE = '{sqlstate}', DETAIL = 'a payload'; END $$"
            )
        assert "a payload" not in str(raised.value)
        assert "a payload" not in str(raised.value.__cause__)


@pytest.mark.parametrize("sqlstate", ["25006", "XX000", "57P03"])
@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
async def test_a_session_that_is_of_no_use_is_given_up_at_once(
    database: OwnDatabase, pooled: bool, sqlstate: str
) -> None:
    """A read-only one stays so, and a pooler would hand it to the next client."""
    store = await opened(database.pooled_url if pooled else database.url, pool_size=1)
    try:
        before = await store.fetch("SELECT pg_backend_pid()")
        await answer_to(store, "P0001")
        assert await store.fetch("SELECT pg_backend_pid()") == before
        await answer_to(store, sqlstate)
        assert await store.fetch("SELECT pg_backend_pid()") != before
    finally:
        await store.close()


async def test_a_stricter_isolation_that_a_database_sets_reaches_no_transaction_of_ours(database: OwnDatabase) -> None:
    name = urlsplit(database.url).path.strip("/")
    await database.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    store = await opened(database.url)
    try:
        for transaction in (store.transaction, store.repeatable):
            async with transaction() as connection:
                assert await connection.fetchval("SHOW transaction_isolation") == "read committed"
    finally:
        await store.close()


async def test_a_role_that_somebody_has_left_in_the_poolers_sessions_goes_with_them(database: OwnDatabase) -> None:
    stores = [await opened(database.pooled_url, pool_size=1) for _ in range(3)]
    try:
        async with contextlib.AsyncExitStack() as together:
            for store in stores:  # each has a server's session of its own while it is in a transaction
                connection = await together.enter_async_context(store.transaction())
                await connection.execute("SET ROLE pg_monitor")
        await eventually(lambda: can_submit(stores[0]), message="its submits are stored")
        await eventually(lambda: can_submit(stores[0], times=10), message="and stay so")
    finally:
        for store in stores:
            await store.close()


async def can_submit(store: Database, times: int = 1) -> bool:
    with contextlib.suppress(DatabaseUnavailable):
        return bool([await submitted_one(store) for _ in range(times)])
    return False


def test_errors_of_the_way_to_the_server_are_tried_again() -> None:
    for error in (OSError("no route"), TimeoutError(), asyncpg.InterfaceError("closed"), ConnectionResetError()):
        with pytest.raises(DatabaseUnavailable) as raised, driver_errors():
            raise error
        assert raised.value.sqlstate == ""


async def test_what_was_never_run_is_told_from_what_may_have_been(
    private_postgres: PostgresServer, private_pgbouncer: PgBouncerServer
) -> None:
    pooled, direct = await opened(private_pgbouncer.url("postgres")), await opened(private_postgres.url())
    try:
        for store in (pooled, direct):
            assert not (await answer_to(store, "40001")).without_effect  # type: ignore[attr-defined]
            assert (await answer_to(store, "25006")).without_effect  # type: ignore[attr-defined]
        cut_off = asyncio.create_task(pooled.fetch("SELECT pg_sleep(60)", timeout=90))
        await eventually(lambda: _sleeps(direct))
        private_postgres.kill()
        with pytest.raises(DatabaseUnavailable) as in_the_middle:
            await cut_off
        assert not in_the_middle.value.without_effect
        for store in (pooled, direct):
            with pytest.raises(DatabaseUnavailable) as away:
                await store.fetch("SELECT 1")
            assert away.value.without_effect, away.value
    finally:
        await pooled.close()
        await direct.close()


async def test_what_a_pooler_could_not_make_a_server_ready_for_was_never_run(
    private_pgbouncer: PgBouncerServer,
) -> None:
    # it fails as when the server ends meanwhile: the pooler sets what a client wants before it sends the statement
    wants = {"DateStyle": "no such style"}
    connection = await asyncpg.connect(private_pgbouncer.url("postgres"), server_settings=wants)
    with pytest.raises(DatabaseUnavailable, match="invalid server parameter") as raised, driver_errors():
        await connection.fetch("CREATE TABLE made ()")
    assert raised.value.without_effect
    connection.terminate()
    direct = await opened(private_pgbouncer.url("postgres"))
    assert not (await direct.fetch("SELECT to_regclass('made') AS made"))[0]["made"]
    await direct.close()


async def _sleeps(store: Database) -> bool:
    return bool(await store.fetch("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
