"""Our own logger: the methods of structlog's, with none of its configuration, which belongs to whoever else runs here.

In: an event and fields. Out: a call of ``say``, which `logs.py` sets. What is below the level costs one comparison.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

LEVELS: Final = {
    "debug": 10, "info": 20, "msg": 20, "warning": 30, "warn": 30, "error": 40, "err": 40, "exception": 40,
    "critical": 50, "fatal": 50,
}  # fmt: skip
NAMES: Final = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
Say: TypeAlias = Callable[[int, str, object, tuple[Any, ...], Mapping[str, Any], dict[str, Any]], None]
_UNSAID: Final = object()


class Threshold:
    """The least severity that is said, and where it is said; one for the whole process."""

    least = logging.INFO
    say: Say = staticmethod(lambda *_: None)


class Depth(threading.local):
    """How many lines this thread is saying now, one because of the other: values may say things when they are shown."""

    most: Final = 2
    now = 0


saying: Final = Depth()


class BoundLogger:
    """Says events of one module, with the fields that are bound to it. Never raises for what it is given."""

    __slots__ = ("_context", "_module")

    def __init__(self, module: str, context: Mapping[str, Any] | None = None) -> None:
        self._module = module
        self._context = dict(context or {})

    def bind(self, /, **fields: Any) -> "BoundLogger":
        """Return a logger with these fields besides."""
        return BoundLogger(self._module, {**self._context, **fields})

    def new(self, /, **fields: Any) -> "BoundLogger":
        """Return a logger with these fields alone."""
        return BoundLogger(self._module, fields)

    def unbind(self, *names: str) -> "BoundLogger":
        """Return a logger without these fields."""
        return BoundLogger(self._module, {key: value for key, value in self._context.items() if key not in names})

    try_unbind = unbind

    def is_enabled_for(self, level: int) -> bool:
        """Return whether a severity is said now."""
        return level >= Threshold.least

    def get_effective_level(self) -> int:
        """Return the least severity that is said now."""
        return Threshold.least

    def debug(self, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """Say something for whoever looks for a fault."""
        if Threshold.least <= logging.DEBUG:
            self._say(logging.DEBUG, event, args, fields)

    def info(self, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """Say what happened as it should."""
        if Threshold.least <= logging.INFO:
            self._say(logging.INFO, event, args, fields)

    def warning(self, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """Say what somebody should know."""
        if Threshold.least <= logging.WARNING:
            self._say(logging.WARNING, event, args, fields)

    def error(self, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """Say what went wrong."""
        if Threshold.least <= logging.ERROR:
            self._say(logging.ERROR, event, args, fields)

    def exception(self, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """Say what went wrong, with the exception that is being handled."""
        if Threshold.least <= logging.ERROR:
            fields.setdefault("exc_info", True)
            self._say(logging.ERROR, event, args, fields)

    def critical(self, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """Say what ends everything."""
        self._say(logging.CRITICAL, event, args, fields)

    def log(self, level: int, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """Say something at a severity (a number of ``logging``)."""
        if isinstance(level, int) and level >= Threshold.least:
            self._say(level, event, args, fields)

    warn, err, fatal, msg = warning, error, critical, info

    async def adebug(self, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """``debug``, for code that awaits it."""
        self.debug(event, *args, **fields)

    async def ainfo(self, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """``info``, for code that awaits it."""
        self.info(event, *args, **fields)

    async def awarning(self, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """``warning``, for code that awaits it."""
        self.warning(event, *args, **fields)

    async def aerror(self, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """``error``, for code that awaits it."""
        self.error(event, *args, **fields)

    async def aexception(self, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """``exception``, for code that awaits it."""
        self.exception(event, *args, **fields)

    async def acritical(self, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """``critical``, for code that awaits it."""
        self.critical(event, *args, **fields)

    async def alog(self, level: int, event: object = _UNSAID, /, *args: Any, **fields: Any) -> None:
        """``log``, for code that awaits it."""
        self.log(level, event, *args, **fields)

    awarn, afatal, amsg = awarning, acritical, ainfo

    def _say(self, level: int, event: object, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
        if event is _UNSAID:
            event = fields.pop("event", "")
        Threshold.say(level, self._module, event, args, self._context, fields)
