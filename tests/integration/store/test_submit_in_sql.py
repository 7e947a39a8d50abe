"""`bobrai_submit`: one commit or none, the limits of the domain, and no table for whoever may only execute it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from bobrai.domain import limits
from bobrai.domain.task import TaskType
from bobrai.domain.unique import Unique
from bobrai.store import migrate, queues, task_types
from bobrai.store.pool import Database
from bobrai.store.queues import Wishes
from tests.integration.store.builders import relayed
from tests.integration.store.conftest import opened
from tests.support.authors import SOMEBODY
from tests.support.databases import Database as OwnDatabase

DAYS = limits.MAX_DELAY_SECONDS

# Of each limit an argument at it, and one beyond.
LIMITS = [
    ("priority => 0", "priority => -1"),
    (f"priority => {limits.MAX_PRIORITY}", f"priority => {limits.MAX_PRIORITY + 1}"),
    ("delay => '0'", "delay => '-1 us'"),
    (f"delay => '{DAYS} s'", f"delay => '{DAYS}.001 s'"),
    ("run_at => '1970-01-01Z'", "run_at => '1969-12-31 23:59:59Z'"),
    ("run_at => '2099-12-31 23:59:59Z'", "run_at => '2100-01-01Z'"),
    ("timeout => '1 ms'", "timeout => '999 us'"),
    (f"timeout => '{limits.MAX_TIMEOUT_SECONDS} s'", f"timeout => '{limits.MAX_TIMEOUT_SECONDS}.001 s'"),
    ("deadline => '1 ms'", "deadline => '999 us'"),
    (f"deadline => '{DAYS} s'", f"deadline => '{DAYS}.001 s'"),
    ("deadline_at => '2099-12-31 23:59:59Z'", "deadline_at => 'infinity'"),
    ("deadline => '61 s', delay => '1 min'", "deadline => '60 s', delay => '1 min'"),
    (
        "deadline_at => '2090-01-02Z', run_at => '2090-01-01Z'",
        "deadline_at => '2090-01-01Z', run_at => '2090-01-01Z'",
    ),
    ("deadline => '1 h'", "deadline => '1 h', run_at => clock_timestamp() + '2 h'"),
    ("deadline => '1 h'", "deadline => '1 h', deadline_at => '2090-01-01Z'"),
    ("expires => '1 ms'", "expires => '0'"),
    (f"expires => '{DAYS} s'", f"expires => '{DAYS + 1} s'"),
    ("expires_at => '1970-01-01Z'", "expires_at => '-infinity'"),
    ("expires => '61 s', delay => '1 min'", "expires => '1 min', delay => '1 min'"),
    ("expires => '1 h'", "expires => '1 h', expires_at => '2090-01-01Z'"),
    ("run_at => '2090-01-01Z'", "run_at => '2090-01-01Z', delay => '0'"),
    ("max_attempts => 1", "max_attempts => 0"),
    (f"max_attempts => {limits.MAX_ATTEMPTS}", f"max_attempts => {limits.MAX_ATTEMPTS + 1}"),
    ("retry => '{}'", "retry => '[]'"),
    ("retry => '{}'", """retry => '{"max_attempts": 3}'"""),
    ("retry => '{\"delay_seconds\": 0}'", "retry => '{\"delay_seconds\": -0.1}'"),
    (f"retry => '{{\"delay_seconds\": {DAYS}}}'", f"retry => '{{\"delay_seconds\": {DAYS}.1}}'"),
    (f"retry => '{{\"max_delay_seconds\": {DAYS}}}'", f"retry => '{{\"max_delay_seconds\": {DAYS}.1}}'"),
    ("retry => '{\"factor\": 1}'", "retry => '{\"factor\": 0.9}'"),
    ("retry => '{\"factor\": 100}'", "retry => '{\"factor\": 100.1}'"),
    ("retry => '{\"jitter\": 1}'", "retry => '{\"jitter\": 1.1}'"),
    ("retry => '{\"jitter\": 0}'", "retry => '{\"jitter\": null}'"),
    ("retry => '{\"retry_for_seconds\": 0.001}'", "retry => '{\"retry_for_seconds\": 0}'"),
    (f"retry => '{{\"retry_for_seconds\": {DAYS}}}'", f"retry => '{{\"retry_for_seconds\": {DAYS}.1}}'"),
    (f"request_id => '{'x' * limits.MAX_REQUEST_ID}'", f"request_id => '{'x' * (limits.MAX_REQUEST_ID + 1)}'"),
    ("request_id => ''", "request_id => 'a b'"),
    (f"queue => '{'q' * 63}'", f"queue => '{'q' * 64}'"),
    ("queue => 'default'", "queue => 'Default'"),
]


@pytest.fixture
async def shop(store: Database) -> Database:
    """The product's pool, with types: a plain one, and one of which there is one at a time."""
    await task_types.announce(
        store, [TaskType(name="echo"), TaskType(name="only", queue="only", unique=Unique(key="/order"))]
    )
    await queues.ensure(store, ["q" * 63, "media"])
    return store


async def submit(connection: asyncpg.Connection, arguments: str = "", *, type_: str = "echo", payload: Any = 1) -> int:
    """Call the function."""
    call = f"SELECT bobrai_submit($1, $2{', ' if arguments else ''}{arguments})"
    task_id: int = await connection.fetchval(call, type_, payload if isinstance(payload, str) else json.dumps(payload))
    return task_id


@pytest.mark.usefixtures("shop")
async def test_each_limit_is_the_one_of_the_domain(database: OwnDatabase) -> None:
    async with database.connect() as connection:
        for at, beyond in LIMITS:
            assert await submit(connection, at) > 0
            says = f"^bobrai_submit: {beyond.split()[0]}"
            with pytest.raises(asyncpg.InvalidParameterValueError, match=says) as refused:
                await submit(connection, beyond)
            assert refused.value.hint, beyond


@pytest.mark.usefixtures("shop")
async def test_a_payload_has_as_many_bytes_as_a_body_over_http(database: OwnDatabase) -> None:
    most = json.dumps(["x" * (limits.MAX_BODY_BYTES - 4)])
    async with database.connect() as connection:
        assert await submit(connection, payload=most) > 0
        with pytest.raises(asyncpg.InvalidParameterValueError, match=f"more than {limits.MAX_BODY_BYTES}"):
            await submit(connection, payload=most + " ")


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("arguments", "refusal", "says"),
    [
        ("'nobody', '1'", asyncpg.UndefinedObjectError, "'nobody' is not a known task type"),
        ("NULL, '1'", asyncpg.InvalidParameterValueError, "type is required"),
        ("'echo', NULL", asyncpg.InvalidParameterValueError, "payload is required"),
        ("'echo', '1', queue => 'elsewhere'", asyncpg.UndefinedObjectError, "'elsewhere' does not exist"),
        ("'only', '{\"order\": 1}'", asyncpg.FeatureNotSupportedError, "'only' are unique"),
    ],
)
async def test_what_cannot_be_submitted_is_refused_with_what_to_do(
    database: OwnDatabase, arguments: str, refusal: type[asyncpg.PostgresError], says: str
) -> None:
    with pytest.raises(refusal, match=says) as refused:
        await database.fetchval(f"SELECT bobrai_submit({arguments})")
    assert refused.value.hint
    assert await database.fetchval("SELECT count(*) FROM tasks") == 0


async def test_a_unique_type_may_be_said_to_have_many_alike(database: OwnDatabase, shop: Database) -> None:
    """Its queue has no row yet: the dispatcher makes that of every queue in which a task waits."""
    async with database.connect() as connection:
        for _ in range(2):
            await submit(connection, "allow_alike => true", type_="only", payload={"order": 1})
    assert await queues.restore(shop) == ["only"]
    assert len(await relayed(shop, queue="only")) == 2


async def test_a_queue_may_be_paused_and_has_room_or_not(database: OwnDatabase, shop: Database) -> None:
    await queues.change(shop, "media", Wishes(paused=True, max_backlog=1), by=SOMEBODY)
    async with database.connect() as connection:
        await submit(connection, "queue => 'media'")
        await queues.measure(shop, {"media": 0}, period_seconds=0.0, takeover_periods=3.0, waiting_period_seconds=0.0)
        with pytest.raises(asyncpg.ConfigurationLimitExceededError, match="'media' is full: at most 1 tasks"):
            await submit(connection, "queue => 'media'")
        await queues.change(shop, "media", Wishes(max_backlog=None), by=SOMEBODY)
        await submit(connection, "queue => 'media'")


@pytest.mark.usefixtures("shop")
async def test_listeners_hear_of_a_commit_once_and_of_a_rollback_never(database: OwnDatabase) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with database.connect() as listening, database.connect() as connection:
        for channel in ("bobrai_outbox", "over"):
            await listening.add_listener(channel, lambda *event: heard.put_nowait(event[2]))
        undone = connection.transaction()
        await undone.start()
        await submit(connection)
        await undone.rollback()
        async with connection.transaction():
            for number in range(20):
                async with connection.transaction():  # a savepoint
                    await submit(connection, payload=number)
            with pytest.raises(asyncpg.InvalidParameterValueError):
                async with connection.transaction():
                    await submit(connection, "priority => 11")
        await connection.execute("NOTIFY over")
        assert [await asyncio.wait_for(heard.get(), 20) for _ in range(2)] == ["bobrai_outbox", "over"]
    payloads = await database.fetch("SELECT payload::text FROM tasks JOIN outbox ON task_id = id ORDER BY id")
    assert [row["payload"] for row in payloads] == [str(number) for number in range(20)]
    assert await database.fetchval("SELECT count(*) FROM tasks") == 20


@pytest.mark.usefixtures("shop")
async def test_one_transaction_submits_ten_thousand(database: OwnDatabase) -> None:
    await database.execute(
        "DO 'BEGIN FOR n IN 1..10000 LOOP PERFORM bobrai_submit(''echo'', to_json(n)); END LOOP; END'"
    )
    payloads = "SELECT count(DISTINCT payload::text) FROM tasks JOIN outbox ON task_id = id"
    assert await database.fetchval(payloads) == 10_000


@pytest.mark.usefixtures("shop")
async def test_times_count_from_the_call_in_a_transaction_however_long(database: OwnDatabase) -> None:
    async with database.connect() as connection, connection.transaction():
        task_id = await submit(connection, "delay => '1 min', deadline => '1 h'")
        (row,) = await connection.fetch(
            "SELECT run_at - created_at AS delay, deadline_at - created_at AS deadline, created_at > now() AS later "
            "FROM tasks WHERE id = $1",
            task_id,
        )
    assert (row["delay"].total_seconds(), row["deadline"].total_seconds()) == (60.0, 3600.0)
    assert row["later"]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("parent", "state", "kept"),
    [
        (f"00-{'a' * 32}-{'b' * 16}-01", "c=d", f"00-{'a' * 32}-{'b' * 16}-01 c=d"),
        (f"00-{'a' * 32}-{'b' * 16}-01", "c" * 513, f"00-{'a' * 32}-{'b' * 16}-01"),
        (f"00-{'a' * 32}-{'b' * 16}-01", None, f"00-{'a' * 32}-{'b' * 16}-01"),
        (f"00-{'0' * 32}-{'b' * 16}-01", "c=d", ""),
        ("order-17", None, ""),
        (None, "c=d", ""),
    ],
)
async def test_a_trace_goes_on_and_a_malformed_one_is_left_out(
    database: OwnDatabase, parent: str | None, state: str | None, kept: str
) -> None:
    call = "SELECT bobrai_submit('echo', '1', traceparent => $1, tracestate => $2)"
    await database.fetchval(call, parent, state)
    assert await database.fetchval("SELECT trace_context FROM tasks") == kept


@pytest.mark.usefixtures("shop")
async def test_a_trigger_that_keeps_the_row_away_is_an_error(database: OwnDatabase) -> None:
    await database.execute(
        "CREATE FUNCTION keep_away() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER away BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION keep_away()"
    )
    async with database.connect() as connection:
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="keeps the task away"):
            await submit(connection)
    assert await database.fetchval("SELECT count(*) FROM outbox") == 0


# --- who may call it -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def role_of(
    database: OwnDatabase, *, may_submit: bool = True, **options: Any
) -> AsyncIterator[asyncpg.Connection]:
    """A connection of a role that was just made, with the grants of docs/transactions.md."""
    role = f"{database.name}_shop"
    await database.execute(f'CREATE ROLE "{role}" LOGIN')
    if may_submit:
        await database.execute(f'GRANT USAGE ON SCHEMA public TO "{role}"')
        await database.execute(f'GRANT EXECUTE ON FUNCTION bobrai_submit TO "{role}"')
    address = urlsplit(database.url)
    try:
        connection = await asyncpg.connect(address._replace(netloc=f"{role}@{address.netloc.split('@')[-1]}").geturl())
        try:
            yield connection
        finally:
            await connection.close()
    finally:
        await database.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


@pytest.mark.usefixtures("shop")
async def test_a_role_with_the_two_grants_submits_and_reaches_no_table(database: OwnDatabase) -> None:
    relations = "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    tables = [row["oid"] for row in await database.fetch(relations)]
    assert {"tasks", "outbox", "queues", "api_keys"} <= set(tables)
    async with role_of(database) as connection:
        task_id = await submit(connection)
        for table in tables:
            for statement in (f"SELECT FROM {table}", f"DELETE FROM {table}", f"INSERT INTO {table} DEFAULT VALUES"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
            columns = "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum = 1"
            column = await connection.fetchval(columns, table)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"UPDATE {table} SET {column} = {column}")
        helpers = (
            "SELECT proname FROM pg_proc WHERE proname LIKE 'bobrai%fault' AND has_function_privilege(oid, 'EXECUTE')"
        )
        assert await connection.fetch(helpers) == []
        me = await connection.fetchval("SELECT current_user")
    assert await database.fetchval("SELECT client_id FROM tasks WHERE id = $1", task_id) == f"sql:{me}"


@pytest.mark.usefixtures("shop")
async def test_a_role_without_the_grant_is_refused(database: OwnDatabase) -> None:
    async with role_of(database, may_submit=False) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for function bobrai_submit"):
            await submit(connection)


@pytest.mark.usefixtures("shop")
async def test_it_refuses_all_while_everybody_may_execute_it(database: OwnDatabase) -> None:
    """As after a restore that leaves privileges out."""
    await database.execute("GRANT EXECUTE ON FUNCTION bobrai_submit TO PUBLIC")
    async with role_of(database, may_submit=False) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="everybody may execute it") as refused:
            await submit(connection)
    assert "REVOKE EXECUTE ON FUNCTION bobrai_submit FROM PUBLIC" in str(refused.value.hint)


TRAPS = """
CREATE SCHEMA trap;
CREATE FUNCTION trap.trapped() RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''trapped''; END';
CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT trap.trapped(); SELECT now()';
CREATE FUNCTION trap.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT trap.trapped()';
CREATE FUNCTION trap.octet_length(text) RETURNS integer LANGUAGE sql AS 'SELECT trap.trapped(); SELECT 1';
CREATE FUNCTION trap.equal(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT trap.trapped(); SELECT true';
CREATE FUNCTION trap.joined(text, name) RETURNS text LANGUAGE sql AS 'SELECT trap.trapped(); SELECT $1';
CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.equal);
CREATE OPERATOR trap.|| (LEFTARG = text, RIGHTARG = name, FUNCTION = trap.joined);
"""


@pytest.mark.usefixtures("shop")
async def test_what_a_caller_makes_stands_in_for_nothing(database: OwnDatabase) -> None:
    async with role_of(database) as connection:
        await database.execute(f"GRANT CREATE, TEMPORARY ON DATABASE {database.name} TO {database.name}_shop")
        await connection.execute(TRAPS)
        for table in ("tasks", "outbox", "queues", "task_types"):
            await connection.execute(f"CREATE TEMPORARY TABLE {table} (id bigint, name text, queue text)")
        await connection.execute("SET search_path = trap, pg_temp, pg_catalog, public")
        with pytest.raises(asyncpg.RaiseError, match="trapped"):
            await connection.fetchval("SELECT clock_timestamp()")
        task_id = await submit(connection)
    assert await database.fetchval("SELECT count(*) FROM tasks JOIN outbox ON task_id = id WHERE id = $1", task_id) == 1


async def test_it_submits_into_the_schema_that_was_migrated(empty_database: OwnDatabase) -> None:
    quoted = '"Ada\'s ""tasks"""'
    await empty_database.execute(
        f"CREATE SCHEMA {quoted}; ALTER DATABASE {empty_database.name} SET search_path = {quoted}"
    )
    await migrate.migrate(empty_database.url)
    store = await opened(empty_database.url)
    await task_types.announce(store, [TaskType(name="echo")])
    await store.close()
    async with empty_database.connect(server_settings={"search_path": "public"}) as connection:
        task_id = await connection.fetchval(f"SELECT {quoted}.bobrai_submit('echo', '1')")
    assert await empty_database.fetch("SELECT task_id FROM outbox") == [{"task_id": task_id}]
