"""How a process ends: the first signal asks it to drain, the second ends it at once.

In: SIGTERM and SIGINT. Out: a Stop that every room's ``serve`` waits on. Exit codes: 0 after a drain, 1 after an error,
2 for a wrong setting, 130 or 143 when a second signal cut the drain short.
"""

import asyncio
import os
import signal

from bobrai.telemetry import logs

log = logs.get_logger(__name__)


class Stop:
    """A wish to end that is made once and heard by everyone."""

    def __init__(self) -> None:
        self._requested = asyncio.Event()
        self.reason = ""

    def is_set(self) -> bool:
        """Return whether the process should end."""
        return self._requested.is_set()

    def request(self, reason: str) -> None:
        """Ask the process to drain; the first reason is kept. Call from the event loop's thread."""
        if not self._requested.is_set():
            self.reason = reason
            self._requested.set()

    async def wait(self) -> None:
        """Return once the process should end."""
        await self._requested.wait()

    async def wait_for(self, seconds: float) -> bool:
        """Return True as soon as the process should end, False after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._requested.wait()
        except TimeoutError:
            return False
        return True

    def install(self) -> None:
        """Turn SIGTERM and SIGINT into a request; a second one ends the process without waiting for anything."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self.is_set():
            log.warning("process.killed", signal=number.name)
            os._exit(128 + number)
        log.info("process.stopping", signal=number.name)
        self.request(number.name)
