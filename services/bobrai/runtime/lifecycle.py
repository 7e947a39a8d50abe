"""How a process ends: the first signal asks it to drain, the second ends it at once.

In: SIGTERM, SIGINT and SIGHUP, which `signals.py` answers from the first instruction on. Out: a Stop that every room's
``serve`` waits on. Exit codes: 0 after a drain, also before there was anything to drain, 1 after an error, 2 for a
wrong setting, 130 or 143 when a second signal cut the drain short. Two seconds after the drain the process is gone.
"""

import asyncio
import contextlib
import signal

from bobrai.runtime import signals
from bobrai.telemetry import logs

HOLD_SECONDS = 0.5
LONG_SECONDS = 2.0  # a drain after which somebody at a terminal may want to know how to end it

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
        """Turn SIGTERM, SIGINT and SIGHUP into a request; a second one ends the process without any wait."""
        loop = asyncio.get_running_loop()

        def listener(number: signal.Signals) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._on_signal, number)

        # The event loop's own way of hearing signals ends with the loop, and waits while something blocks it.
        signals.listen(listener, lambda number: log.warning("process.killed", signal=number.name))

    async def hold(self) -> None:
        """Keep the signals for ever, whoever else asks Python for them."""
        while True:
            signals.hold()
            await asyncio.sleep(HOLD_SECONDS)

    def _on_signal(self, number: signal.Signals) -> None:
        log.info("process.stopping", signal=number.name)
        self.request(number.name)
        asyncio.get_running_loop().call_later(LONG_SECONDS, _tell_way_out)


def _tell_way_out() -> None:
    log.info("process.draining", hint="what runs may finish; a second SIGTERM or Ctrl-C ends the process at once")
