"""What PostgreSQL answers, and whose fault that is: only values are refused, everything else is tried again."""

import asyncpg
import pytest

from bobrai.domain.errors import DatabaseUnavailable, SchemaMissing, StoreRejected
from bobrai.store.pool import Database, driver_errors
from tests.integration.store.conftest import opened
from tests.support.databases import Database as OwnDatabase

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
        assert isinstance(error, StoreRejected) is (sqlstate[:2] in {"22", "23", "54"}), sqlstate
        assert sqlstate in str(error)
        if isinstance(error, DatabaseUnavailable):
            assert error.sqlstate == sqlstate
            assert isinstance(error, SchemaMissing) is (sqlstate in {"42P01", "42703", "42883", "3F000"})


async def test_what_the_driver_cannot_encode_is_the_values_fault(store: Database) -> None:
    for query, value in (("SELECT $1::smallint", 40_000), ("SELECT $1::text", "\ud800"), ("SELECT $1::int[]", ["a"])):
        with pytest.raises(StoreRejected):
            await store.fetch(query, value)


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
        await answer_to(store, "42501")
        assert await store.fetch("SELECT pg_backend_pid()") == before
        await answer_to(store, sqlstate)
        assert await store.fetch("SELECT pg_backend_pid()") != before
    finally:
        await store.close()


def test_errors_of_the_way_to_the_server_are_tried_again() -> None:
    for error in (OSError("no route"), TimeoutError(), asyncpg.InterfaceError("closed"), ConnectionResetError()):
        with pytest.raises(DatabaseUnavailable) as raised, driver_errors():
            raise error
        assert raised.value.sqlstate == ""
