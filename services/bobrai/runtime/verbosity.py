"""The log level of a running process: SIGUSR1 prints everything, SIGUSR2 what the setting says again.

In: signals, which only the process's own user and root can send, so that no port has to be guarded; ``bobrai
log-level`` sends them. Out: a changed level.
"""

import asyncio
import signal
from typing import Final

from bobrai.runtime import signals
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

SIGNALS: Final = {"debug": signal.SIGUSR1, "configured": signal.SIGUSR2}
_LOUDER: Final = ("debug", "info", "warning")  # what lets a warning through


def install() -> None:
    """Answer the signals from now on."""
    loop = asyncio.get_running_loop()
    for number, level in ((signal.SIGUSR1, "debug"), (signal.SIGUSR2, logs.level())):
        loop.add_signal_handler(number, _change, level, number)
        if signals.level_asked() == number:
            _change(level, number)


def _change(level: str, number: signal.Signals) -> None:
    logs.set_level(level if level in _LOUDER else "warning")  # the change itself is printed whatever it is
    log.warning("log.level_changed", now=level, signal=number.name)
    logs.set_level(level)
