"""Whether the database answers: asked at most once a second, whoever asks, and waited for no longer than a moment."""

import asyncio
import time
from typing import Final

from bobrai.domain.errors import BobraiError
from bobrai.store.pool import Database
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_FRESH_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 3.0


class DatabaseProbe:
    """Asks the database for a sign of life, on behalf of many."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asking: asyncio.Task[bool] | None = None
        self._answered_at = float("-inf")
        self._alive = False

    async def alive(self) -> bool:
        """Return whether it answered lately; one that takes too long counts as away."""
        if time.monotonic() - self._answered_at < _FRESH_SECONDS:
            return self._alive
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        await asyncio.wait({self._asking}, timeout=_LONGEST_WAIT_SECONDS)
        return self._asking.done() and self._alive

    async def _ask(self) -> bool:
        try:
            await self._database.ping()
            self._alive = True
        except BobraiError as error:
            log.debug("database.silent", error=str(error))  # the loops log the outage, once
            self._alive = False
        self._answered_at = time.monotonic()
        return self._alive
