"""A database whose callers wait out a short outage, as a restart of PostgreSQL is, instead of hearing of it.

In: statements for a Database (`pool.py`). Out: their rows, or its error once the outage has lasted longer than patience
does. Only what certainly took no effect is tried again. While the database is away one task asks whether it is back,
whoever waits for it; for those whose writes it refuses, whether it takes them again: a server that is about to end
refuses writes first, and one that was sent once more would be lost with it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bobrai.domain.errors import DatabaseUnavailable
from bobrai.store.pool import Database, Record
from bobrai.telemetry import logs

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

log = logs.get_logger(__name__)

Result = TypeVar("Result")

_LOOK_SECONDS: Final = 0.1
_WRITE_REFUSED: Final = "25006"


class PatientDatabase:
    """Runs statements as a Database does, for callers who would rather wait for ``seconds`` than fail.

    The time counts from the beginning of the outage, for all of them. Later calls fail as soon as the database does:
    who has waited in vain hears it before others have to wait as well.
    """

    def __init__(self, database: Database, seconds: float) -> None:
        self._database = database
        self._seconds = seconds
        self._away_since = 0.0
        self._failed_at: float | None = None  # None: the last call went well
        self._returns: dict[bool, asyncio.Task[None]] = {}  # by whether it is to take writes

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Record]:
        """Run one statement in its own transaction; raises what ``Database.fetch`` does."""
        return await self.outlast(lambda: self._database.fetch(query, *args, timeout=timeout))

    @asynccontextmanager
    async def transaction(self) -> "AsyncIterator[PoolConnectionProxy[Record]]":
        """Run several statements in one transaction; an outage is waited out at its beginning, not within."""
        async with AsyncExitStack() as stack:
            yield await self.outlast(lambda: stack.enter_async_context(self._database.transaction()))

    async def outlast(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """Call until the database is there for it or patience is over; raises what the last call raises."""
        began = time.monotonic()
        while True:
            try:
                result = await call()
            except DatabaseUnavailable as error:
                if not error.without_effect:
                    raise
                await self._wait(error, began)
            else:
                self._failed_at = None
                return result

    async def close(self) -> None:
        """Stop looking whether the database is back."""
        looks = list(self._returns.values())
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    async def _wait(self, error: DatabaseUnavailable, began: float) -> None:
        """Return when the database is back; raises the error when patience with it or with this call is over."""
        now = time.monotonic()
        if self._failed_at is None or now - self._failed_at > self._seconds:
            self._away_since = began
        self._failed_at = now
        left = min(self._away_since, began) + self._seconds - now
        if left <= 0:
            raise error
        writing = error.sqlstate == _WRITE_REFUSED
        look = self._returns.get(writing)
        if look is None:
            look = self._returns[writing] = asyncio.create_task(self._wait_until_back(writing), name="database-return")
        back, _ = await asyncio.wait({look}, timeout=left)
        if not back:
            self._failed_at = time.monotonic()
            raise error

    async def _wait_until_back(self, writing: bool) -> None:
        try:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                try:
                    await self._database.ping(writing=writing)
                except DatabaseUnavailable as error:
                    log.debug("database.silent", error=str(error))  # a loop says so, once
                else:
                    return
        finally:
            del self._returns[writing]
