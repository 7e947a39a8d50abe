"""Structured logs: JSON lines, or a readable console on a terminal.

In: an event name and fields from any room, and whatever libraries say through ``logging``. Out: one line on standard
output. Never a payload, a result or a credential: URLs lose their password here, whoever logs them.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TypeAlias, cast

import msgspec
import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, merge_contextvars
from structlog.typing import FilteringBoundLogger, Processor

__all__ = ["Logger", "bind_contextvars", "bound_contextvars", "clear_contextvars", "configure", "get_logger"]

Logger: TypeAlias = FilteringBoundLogger

# The credentials of any URL: everything between :// and the last @ before a slash or a space.
_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")
_PLAIN = (int, float, bool, type(None))
_encoder = msgspec.json.Encoder(enc_hook=str)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return _CREDENTIALS.sub("***@", value) if "://" in value else value
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    return _clean(str(value))


def _redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = _clean(value)
    return event


def _to_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    return _encoder.encode(event)


class _FromLogging(logging.Handler):
    """Carries what libraries log into the same stream, with the same fields."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one library record; its traceback, when there is one, becomes a field."""
        fields: dict[str, Any] = {"module": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        logger = cast("FilteringBoundLogger", structlog.get_logger())
        logger.log(record.levelno, record.getMessage(), **fields)


def configure(*, level: str, json: bool, process: str) -> None:
    """Set up logging for this process; call once, before anything logs. ``process`` is a field of every line."""
    least = getattr(logging, level.upper())
    processors: list[Processor] = [
        merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _name_process(process),
    ]
    if json:
        processors += [structlog.processors.format_exc_info, _redact, _to_line]
        factory: Any = structlog.BytesLoggerFactory(sys.stdout.buffer)
    else:
        processors += [structlog.processors.format_exc_info, _redact, structlog.dev.ConsoleRenderer()]
        factory = structlog.PrintLoggerFactory(sys.stdout)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_FromLogging()], level=max(least, logging.WARNING), force=True)


def _name_process(process: str) -> Processor:
    def add(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        event["process"] = process
        return event

    return add


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module; events are called ``room.what_happened``."""
    return cast("FilteringBoundLogger", structlog.get_logger(module=name.removeprefix("bobrai.")))
