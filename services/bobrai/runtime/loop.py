"""A periodic duty that survives outages.

In: a coroutine that does one round. Out: rounds, until the process stops. An error is logged once per change of state,
counted, and answered with a longer pause; it never ends the process.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from bobrai.domain.errors import Unavailable
from bobrai.runtime.lifecycle import Stop
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)

LONGEST_PAUSE_SECONDS = 10.0


class PeriodicLoop:
    """Calls ``run_once`` every ``interval_seconds``, or when it is woken.

    ``run_once`` may return the seconds until the next round; None means the interval. After a failure the pause doubles
    up to ``longest_pause_seconds``, with jitter, so that replicas do not come back together.
    """

    def __init__(
        self,
        name: str,
        interval_seconds: float,
        run_once: Callable[[], Awaitable[float | None]],
        *,
        longest_pause_seconds: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        self.name = name
        self.healthy = True
        self._interval = interval_seconds
        self._longest_pause = longest_pause_seconds
        self._run_once = run_once
        self._woken = asyncio.Event()
        self._failures = 0
        self._errors = metrics.LOOP_ERRORS.labels(name)
        self._success = metrics.LOOP_SUCCESS.labels(name)

    def wake(self) -> None:
        """Start the next round now, or right after the one under way; a pause after a failure is kept."""
        self._woken.set()

    async def run(self, stop: Stop) -> None:
        """Do rounds until the process stops; the round under way is finished."""
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                self._woken.clear()
                pause = await self._round()
                if pause > 0:
                    await self._sleep(pause, stopping)
        finally:
            stopping.cancel()

    async def _sleep(self, pause: float, stopping: "asyncio.Future[None]") -> None:
        # A wake must not turn the pause after a failure into a busy loop against a server that is down.
        woken = None if self._failures else asyncio.ensure_future(self._woken.wait())
        wakers: list[asyncio.Future[Any]] = [stopping] if woken is None else [stopping, woken]
        await asyncio.wait(wakers, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        if woken is not None:
            woken.cancel()

    async def _round(self) -> float:
        try:
            next_in = await self._run_once()
        except Exception as error:  # noqa: BLE001 - a duty outlives every error of a round
            return self._failed(error)
        if not self.healthy:
            log.info("loop.recovered", loop=self.name, failures=self._failures)
        self.healthy = True
        self._failures = 0
        self._success.set_to_current_time()
        return self._interval if next_in is None else next_in

    def _failed(self, error: Exception) -> float:
        self._errors.inc()
        self._failures += 1
        if self.healthy:
            # An outage needs no traceback; anything else is a defect and does.
            expected = isinstance(error, Unavailable)
            log.warning("loop.failed", loop=self.name, error=str(error), exc_info=None if expected else error)
        self.healthy = False
        longest: float = min(self._longest_pause, max(self._interval, 0.2) * 2.0 ** min(self._failures - 1, 10))
        return longest * random.uniform(0.5, 1.0)
