"""How lines get here that handlers and libraries say through ``logging`` and structlog.

In: records that reach the root logger, and events of a structlog that nobody has configured. Out: calls of ``say``.
Both ways are defaults: whoever sets up ``logging`` or structlog takes them away, prints as wished, and is not printed
twice.
"""

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog

from bobrai.telemetry import rendering
from bobrai.telemetry.logger import LEVELS, Say, Threshold, saying
from bobrai.telemetry.sink import lost

_STANDARD: Final = (1, 2)  # descriptors of standard output and standard error


class FromLogging(logging.Handler):
    """Carries records into our stream, with the same fields.

    Outside of attempts and requests only warnings and worse: how libraries come along is nobody's business.
    """

    def __init__(self, say: Say, is_inside: Callable[[], bool]) -> None:
        super().__init__()
        self._say = say
        self._is_inside = is_inside

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; its traceback, when there is one, becomes a field."""
        if saying.now > saying.most:
            lost()
            return
        saying.now += 1
        try:
            self._print(record)
        except Exception:  # noqa: BLE001 - a record that somebody made by hand may lack anything
            self._say(logging.ERROR, "", "a log record cannot be read", (), {}, {})
        finally:
            saying.now -= 1

    def _print(self, record: logging.LogRecord) -> None:
        if record.levelno < Threshold.least or (record.levelno < logging.WARNING and not self._is_inside()):
            return
        if _is_printed_otherwise(record, self):
            return
        fields: dict[str, Any] = {}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        self._say(record.levelno, rendering.text(record.name), _message(record, fields), (), {}, fields)


def _message(record: logging.LogRecord, fields: dict[str, Any]) -> object:
    try:
        return record.getMessage()
    except BaseException:  # noqa: BLE001 - arguments that do not fit, or that raise when they are shown
        fields["arguments"] = record.args
        return record.msg


def _is_printed_otherwise(record: logging.LogRecord, ours: logging.Handler) -> bool:
    """Return whether another handler on the record's way writes it to standard output or standard error."""
    logger: logging.Logger | None = logging.getLogger(record.name) if record.name != "root" else logging.getLogger()
    while logger is not None:
        for handler in logger.handlers:
            if handler is not ours and record.levelno >= handler.level and _is_standard(handler):
                return True
        logger = logger.parent if logger.propagate else None
    return False


def _is_standard(handler: logging.Handler) -> bool:
    stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
    if stream is None:
        return False
    if stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        return True
    try:
        return stream.fileno() in _STANDARD
    except Exception:  # noqa: BLE001 - a stream of somebody's own
        return False


def _from_structlog(say: Say) -> Callable[[object, str, MutableMapping[str, Any]], Any]:
    def hand_over(_logger: object, method: str, event: MutableMapping[str, Any]) -> Any:
        severity = LEVELS.get(method, logging.INFO)
        if severity >= Threshold.least:
            fields = dict(event)
            say(severity, "", fields.pop("event", ""), (), {}, fields)
        raise structlog.DropEvent

    return hand_over


_handler: FromLogging | None = None


def listen(say: Say, is_inside: Callable[[], bool]) -> None:
    """Print what ``logging`` and structlog are told, until somebody sets them up otherwise."""
    global _handler
    _handler = FromLogging(say, is_inside)
    logging.basicConfig(handlers=[_handler], force=True)
    processors = structlog.get_config()["processors"]
    # Changed in place, not configured: to its users, structlog is as if nobody had touched it.
    if not structlog.is_configured() and isinstance(processors, list):
        processors[:] = [_from_structlog(say)]


def set_level(least: int) -> None:
    """Have ``logging`` make records from this severity on, while they are ours to print."""
    root = logging.getLogger()
    if _handler is not None and _handler in root.handlers:
        root.setLevel(least)
