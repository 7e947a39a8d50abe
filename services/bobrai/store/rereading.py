"""One reading for many: memory that follows tables is read again for all who miss something in it.

In: a coroutine that reads. Out: its end, once for everybody who asked before it began. Never two at a time, and for
those who ask only a few in a second.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

_LEAST_PAUSE_SECONDS: Final = 0.2  # between two reads for what is missing


class Rereading:
    """Reads again, on behalf of many; ``lock`` is for who must keep others from reading meanwhile."""

    def __init__(self, read: Callable[[], Awaitable[None]]) -> None:
        self.lock = asyncio.Lock()
        self._read = read
        self._began_at = float("-inf")  # the latest read
        self._next: asyncio.Task[None] | None = None

    async def now(self) -> None:
        """Read once nobody else does."""
        async with self.lock:
            await self.locked()

    async def locked(self) -> None:
        """Read; the caller holds the lock."""
        self._began_at = time.monotonic()
        await self._read()

    async def soon(self) -> None:
        """Return once a read is over that began after this call: it knows what was committed before."""
        if self._next is None:
            self._next = asyncio.create_task(self._read_soon())
            self._next.add_done_callback(_retrieve)
        await asyncio.shield(self._next)

    async def _read_soon(self) -> None:
        await asyncio.sleep(self._began_at + _LEAST_PAUSE_SECONDS - time.monotonic())
        async with self.lock:
            self._next = None  # who comes now may ask for what this read does not see
            await self.locked()


def _retrieve(read: asyncio.Task[None]) -> None:
    """Take a failed read's error although nobody may wait for it any more."""
    if not read.cancelled():
        read.exception()
