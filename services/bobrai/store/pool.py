"""Connections to PostgreSQL, and the border where driver errors become ``domain.errors``.

In: a statement's text and its arguments. Out: records. Works through PgBouncer in transaction mode: no session state,
no reset query, prepared statements tracked by the pooler. Only a process's composition root opens a Database.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import asyncpg

from bobrai import tls
from bobrai.domain.errors import ConfigurationError, DatabaseUnavailable, SchemaMissing, StoreRejected
from bobrai.settings import DatabaseSettings
from bobrai.store.connecting import Connector
from bobrai.telemetry import metrics

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Record = asyncpg.Record

# A PgBouncer that is to stop takes no new clients and waits for those that it has, while new connections find another
# one. So none lasts for long: a rollout or a node's drain waits for it.
IDLE_SECONDS = 20.0
RENEW_SECONDS = 20.0
_GIVE_UP_SECONDS = 1.0
ROUNDS = 50  # of a statement that somebody else was quicker than, before it counts as kept away


class Executor(Protocol):
    """What runs a statement: a Database, or a connection inside a transaction."""

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Record]:
        """Run one statement and return its rows."""
        ...


class Transactional(Executor, Protocol):
    """What runs a statement by itself, or several together."""

    def transaction(self) -> AbstractAsyncContextManager[PoolConnectionProxy[Record]]:
        """Run several statements in one transaction, which commits when the block ends without an error."""
        ...


# SQLSTATE classes that say something of the values: data exceptions, integrity constraints, limits of one value or row.
# The driver's own encoding errors are of class 22 too. All else is the server's, whatever it is.
_VALUES = frozenset({"22", "23", "54"})
# Of these classes, but the server's: a sequence has come to its end, or a key that is drawn from one is taken already.
_SEQUENCE_ENDED = "2200H"
_KEY_TAKEN = "23505"
_DRAWN_KEYS = frozenset({"tasks_pkey", "outbox_pkey", "workers_pkey", "audit_pkey"})
# Where somebody has given the key another name: PostgreSQL says "Key (id)=(7) …", in the server's language.
_DRAWN_COLUMNS = {"tasks": "(id)=", "outbox": "(task_id)=", "workers": "(id)=", "audit": "(id)="}
# The same: the server has used up its transaction ids. It says so with the code of a row that is too large, 54000.
_OUT_OF_IDS = frozenset({"GetNewTransactionId", "GetNewMultiXactId"})
_SCHEMA = frozenset({"42P01", "42703", "42883", "3F000"})  # no such table, column, function, schema
# These speak of the server, the session or the statement, never of one row among many. (22 and 54: what of them is the
# server's.)
_FOR_ALL = frozenset({"08", "0A", "22", "25", "26", "28", "3D", "3F", "40", "42", "53", "54", "57"})
_PERHAPS_ONE_ROW = frozenset({"42501", "42704", "57014"})  # a policy, a row kept away (submit.sql), a lock
# After these a session is of no more use: its server is read-only or ends, or its own state is broken.
_LOST_SESSIONS = frozenset({"08", "25", "26", "57", "58", "XX"})
# After these it may be: another client of the pooler may have left a role or a search_path in the server's session. As
# it is rather the tables' fault, which lasts, sessions are given up for it one after the other.
_PERHAPS_LOST_SESSIONS = frozenset({"3F", "42"})
_SUSPECT_SECONDS = 0.3
# A server that only reads, or ends, or does not know the statement yet, says so instead of running it. (One that
# crashes, 57P02, may have committed.)
_NOT_RUN = frozenset({"25006", "26000", "57P01", "57P03"})
_BEGIN_REPEATABLE = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = off"
_READS_ONLY = "SELECT current_setting('transaction_read_only')::bool"
# PgBouncer's words to a client for which it found no server, or one that ended while it was made ready for this client,
# before anything of the client's was sent to it. Their SQLSTATE, 08P01, it also gives to one whose server was lost in
# the middle of a statement.
_NO_SERVER_FOUND = ("server login has been failing", "query_wait_timeout", "invalid server parameter")


@contextmanager
def driver_errors(*, connecting: bool = False) -> Iterator[None]:
    """Turn asyncpg's errors into ours: StoreRejected when the values are at fault, else DatabaseUnavailable.

    ``connecting``: nothing is sent yet that could take effect.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        detail, error.detail = error.detail or "", None  # it quotes payloads into whatever log the error gets
        told = _from_server(error, error.sqlstate or "", detail)
        if isinstance(told, DatabaseUnavailable):
            told.without_effect = connecting or _was_not_run(error)
        raise told from error
    except TimeoutError as error:
        raise DatabaseUnavailable(_told(error), perhaps_one_row=True, without_effect=connecting) from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        raise DatabaseUnavailable(_told(error), without_effect=connecting) from error


@contextmanager
def rejections() -> Iterator[None]:
    """Turn an error of values into StoreRejected within a transaction; others stay the driver's until its end."""
    try:
        yield
    except asyncpg.PostgresError as error:
        told = _from_server(error, error.sqlstate or "", error.detail or "")
        if not isinstance(told, StoreRejected):
            raise
        error.detail = None  # as above
        raise told from error


def _from_server(error: asyncpg.PostgresError, sqlstate: str, detail: str) -> StoreRejected | DatabaseUnavailable:
    told = _told(error, sqlstate)
    kind = sqlstate[:2]
    if kind in _VALUES and not _is_servers(error, sqlstate, detail):
        return StoreRejected(told)
    if sqlstate in _SCHEMA:
        return SchemaMissing(
            f"the schema is missing or older than this release: run `bobrai migrate` ({told})", sqlstate
        )
    perhaps_one_row = kind not in _FOR_ALL or sqlstate in _PERHAPS_ONE_ROW
    return DatabaseUnavailable(told, sqlstate, perhaps_one_row=perhaps_one_row)


def _was_not_run(error: asyncpg.PostgresError) -> bool:
    # The driver's own error for a connection that ended carries the last words from its other end.
    last = error.__cause__ if isinstance(error.__cause__, asyncpg.PostgresError) else error
    return last.sqlstate in _NOT_RUN or any(words in str(last) for words in _NO_SERVER_FOUND)


def _is_servers(error: asyncpg.PostgresError, sqlstate: str, detail: str) -> bool:
    if sqlstate == _KEY_TAKEN:
        column = _DRAWN_COLUMNS.get(error.table_name or "")
        return error.constraint_name in _DRAWN_KEYS or (column is not None and column in detail)
    # The name of PostgreSQL's own function, because its message is in the server's language.
    return sqlstate == _SEQUENCE_ENDED or error.server_source_function in _OUT_OF_IDS


def _told(error: Exception, sqlstate: str = "") -> str:
    if isinstance(error, ssl.SSLError):
        return tls.reason(error)
    kind = f"{type(error).__name__} {sqlstate}".rstrip()
    return f"{kind}: {error}".rstrip(": ")


class Database:
    """A pool of connections that opens lazily, so that a process can start before its database is up."""

    def __init__(self, settings: DatabaseSettings, *, pool_size: int | None = None, name: str = "bobrai") -> None:
        self._settings = settings
        self._pool_size = pool_size or settings.pool_size
        self._name = name
        self._pool: asyncpg.Pool[Record] | None = None
        self._waiting = 0
        self._suspected_at = -_SUSPECT_SECONDS
        self._renew_at: WeakKeyDictionary[asyncpg.Connection[Record], float] = WeakKeyDictionary()
        short = name.removeprefix("bobrai-")
        self._wait_seconds = metrics.POOL_WAIT_SECONDS.labels(short)
        self._unavailable = metrics.DATABASE_ERRORS.labels(short, "unavailable")
        self._rejected = metrics.DATABASE_ERRORS.labels(short, "rejected")
        metrics.POOL_SIZE.labels(short).set(self._pool_size)
        metrics.POOL_WAITING.labels(short).set_function(lambda: self._waiting)
        metrics.POOL_CONNECTIONS.labels(short, "used").set_function(lambda: self.in_use)
        metrics.POOL_CONNECTIONS.labels(short, "idle").set_function(lambda: self.idle)

    async def open(self) -> None:
        """Prepare the pool without connecting; raises ConfigurationError when the DSN cannot be read."""
        settings = self._settings
        try:
            self._pool = await asyncpg.create_pool(
                connect=Connector(settings.pooled()),
                min_size=0,
                max_size=self._pool_size,
                timeout=settings.connect_timeout_seconds,
                command_timeout=settings.command_timeout_seconds,
                statement_cache_size=settings.statement_cache_size,
                max_cached_statement_lifetime=0,
                max_inactive_connection_lifetime=IDLE_SECONDS,
                init=self._connected,
                reset=self._returned,
                server_settings={"application_name": self._name},
            )
        except ValueError as error:
            raise ConfigurationError("BOBRAI_DATABASE_URL cannot be read as a PostgreSQL DSN") from error

    async def _connected(self, connection: asyncpg.Connection[Record]) -> None:
        """Note until when a new connection serves; not all end at once."""
        self._renew_at[connection] = time.monotonic() + RENEW_SECONDS * random.uniform(0.7, 1.0)

    async def _returned(self, connection: asyncpg.Connection[Record]) -> None:
        """Leave a returned connection as it is: nothing here keeps session state, and a reset is a round trip.

        Only those that are old, and those whose transaction was cut off in the middle, are given up.
        """
        if connection.is_in_transaction() or time.monotonic() > self._renew_at[connection]:
            connection.terminate()

    async def close(self) -> None:
        """Close every connection, by force after the connect timeout."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(self._settings.connect_timeout_seconds):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @property
    def in_use(self) -> int:
        """Connections that are running something now."""
        return 0 if self._pool is None else self._pool.get_size() - self._pool.get_idle_size()

    @property
    def idle(self) -> int:
        """Connections that wait for something to run."""
        return 0 if self._pool is None else self._pool.get_idle_size()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with driver_errors():
                yield
        except DatabaseUnavailable:
            self._unavailable.inc()
            raise
        except StoreRejected:
            self._rejected.inc()
            raise

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[PoolConnectionProxy[Record]]:
        pool = self._opened()
        started = time.perf_counter()
        self._waiting += 1
        try:
            with driver_errors(connecting=True):
                connection = await pool.acquire(timeout=self._settings.connect_timeout_seconds)
        finally:
            self._waiting -= 1
            self._wait_seconds.observe(time.perf_counter() - started)
        try:
            yield connection
        except asyncpg.PostgresError as error:
            if self._is_lost(error):
                await _give_up(connection)
            raise
        finally:
            await pool.release(connection)

    def _is_lost(self, error: asyncpg.PostgresError) -> bool:
        kind = (error.sqlstate or "")[:2]
        if kind in _PERHAPS_LOST_SESSIONS and time.monotonic() - self._suspected_at >= _SUSPECT_SECONDS:
            self._suspected_at = time.monotonic()
            return True
        return kind in _LOST_SESSIONS and not isinstance(error, asyncpg.QueryCanceledError)

    def _opened(self) -> asyncpg.Pool[Record]:
        if self._pool is None:
            raise DatabaseUnavailable("the pool is not open")
        return self._pool

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Record]:
        """Run one statement in its own transaction.

        Raises DatabaseUnavailable when it is unknown whether it took effect, StoreRejected when PostgreSQL refused it.
        """
        with self._errors():
            async with self._connection() as connection:
                rows: list[Record] = await connection.fetch(query, *args, timeout=timeout)
                return rows

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PoolConnectionProxy[Record]]:
        """Run several statements in one transaction, which commits when the block ends without an error.

        It is READ COMMITTED, whatever database and role say: a stricter one refuses commits that nobody tries again.
        """
        with self._errors():
            async with self._connection() as connection, connection.transaction(isolation="read_committed"):
                yield connection

    @asynccontextmanager
    async def repeatable(self, settings: str = "") -> AsyncIterator[PoolConnectionProxy[Record]]:
        """Run a transaction that may be undone by a crash of the server, and saves the wait for the disk.

        ``settings`` are statements such as ``SET LOCAL …`` that it begins with.
        """
        with self._errors():
            async with self._connection() as connection:
                # asyncpg's own transaction would need another round trip for the settings.
                await connection.execute(f"{_BEGIN_REPEATABLE}; {settings}")
                try:
                    yield connection
                except BaseException:
                    with suppress(asyncpg.InterfaceError):  # it is gone, and has rolled back by that
                        await connection.execute("ROLLBACK")
                    raise
                await connection.execute("COMMIT")

    async def ping(self, *, writing: bool = False) -> None:
        """Ask the database for a sign of life, or whether it takes writes now; raises DatabaseUnavailable."""
        with self._errors():
            async with self._connection() as connection:
                reads_only = await connection.fetchval(_READS_ONLY, timeout=2.0)
                if writing and reads_only:
                    raise asyncpg.ReadOnlySQLTransactionError("the server takes no writes")


async def _give_up(connection: PoolConnectionProxy[Record]) -> None:
    """End a session that is of no more use, and with it the one that a pooler keeps behind it.

    A pooler would hand its server's side to the next client. It closes what is left in the middle of a transaction.
    """
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        await connection.execute("BEGIN", timeout=_GIVE_UP_SECONDS)
    with suppress(asyncpg.InterfaceError):  # it is gone already
        connection.terminate()


def column(rows: Sequence[Record], name: str) -> list[Any]:
    """Return one column of many rows."""
    return [row[name] for row in rows]
