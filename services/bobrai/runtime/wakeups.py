"""Hears commits that concern a process, and wakes the loop that looks after them.

In: NOTIFY on one channel of a direct connection, held open and checked. Out: one call per notification, and one after
every reconnection for whatever was said meanwhile. Without the connection the loop still finds everything by its slow
poll.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from bobrai.runtime.lifecycle import Stop
from bobrai.settings import DatabaseSettings
from bobrai.store.listener import Listener
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)

CHECK_SECONDS: Final = 5.0  # between two signs of life
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0


class Wakeups:
    """Keeps one connection alive that listens on a channel; ``name`` is its own in the metric of connections.

    ``away``, where given, says whether the database is away altogether, of which somebody else tells.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        channel: str,
        wake: Callable[[], None],
        *,
        name: str,
        away: Callable[[], bool] | None = None,
    ) -> None:
        self._url = settings.direct()
        self._channel = channel
        self._connected = metrics.CONNECTED.labels(name)
        self._timeout = settings.connect_timeout_seconds
        self._wake = wake
        self._away = away
        self._failures = 0
        self._told = False
        self.listening = False

    async def run(self, stop: Stop) -> None:
        """Listen until the process stops, reconnecting for ever."""
        pause = FIRST_PAUSE_SECONDS
        while not stop.is_set():
            lost = asyncio.Event()
            listener = Listener(self._url, self._channel, timeout_seconds=self._timeout)
            try:
                await listener.open(self._wake, lost.set)
                self._listens()
                pause = FIRST_PAUSE_SECONDS
                while not lost.is_set() and not await _either(lost, stop, CHECK_SECONDS):
                    await listener.check()
                self._deaf("the connection was lost", stop)
            except Exception as error:  # noqa: BLE001 - the process goes on without it, whatever it is
                self._deaf(f"{type(error).__name__}: {error}", stop)
            finally:
                listener.close()
            await stop.wait_for(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _listens(self) -> None:
        self.listening = True
        self._failures = 0
        self._told = False
        self._connected.set(1)
        log.info("wakeups.listening", channel=self._channel)
        self._wake()

    def _deaf(self, reason: str, stop: Stop) -> None:
        self.listening = False
        self._connected.set(0)
        self._failures += 1
        # What ends first when a database goes away is this connection; only later it is known which of the two it is.
        elsewhere = self._away is not None and (self._failures == 1 or self._away())
        if not self._told and not elsewhere and not stop.is_set():
            self._told = True
            log.warning("wakeups.lost", channel=self._channel, reason=reason)


async def _either(lost: asyncio.Event, stop: Stop, seconds: float) -> bool:
    """Return True as soon as the connection is lost or the process stops, False after ``seconds``."""
    waiters = [asyncio.ensure_future(lost.wait()), asyncio.ensure_future(stop.wait())]
    done, pending = await asyncio.wait(waiters, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for waiter in pending:
        waiter.cancel()
    return bool(done)
