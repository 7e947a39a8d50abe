"""Structured logs: JSON lines, ECS lines for Elastic, or a readable console on a terminal.

In: an event name and fields from any room, and whatever handlers and libraries say through ``logging`` or structlog.
Out: one line on standard output, with the fields of the request or attempt that it was said in. Never a payload, a
result or a credential: URLs lose their password here, whoever logs them. The names are in `events.py`.
"""

import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec
import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, merge_contextvars
from structlog.typing import FilteringBoundLogger, Processor

from bobrai.telemetry import ecs

__all__ = [
    "Fields", "Format", "Logger", "bind_contextvars", "bound_contextvars", "carry", "clear_contextvars", "configure",
    "get_logger", "level", "prints", "set_level", "trace_with",
]  # fmt: skip

Logger: TypeAlias = FilteringBoundLogger
Format: TypeAlias = Literal["json", "ecs", "console"]

# The credentials of any URL: everything between :// and the last @ before a slash or a space.
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/\s]*@")
_PLAIN: Final = (int, float, bool, type(None))
_LEVELS: Final = {
    "debug": 10, "info": 20, "warning": 30, "warn": 30, "error": 40, "exception": 40, "critical": 50, "fatal": 50,
}  # fmt: skip
_encoder = msgspec.json.Encoder(enc_hook=str)


Fields: TypeAlias = Callable[[], Mapping[str, object]]


_least = logging.INFO
_said_in: ContextVar[Fields | None] = ContextVar("bobrai_said_in", default=None)
_trace_fields: Callable[[], Mapping[str, str]] | None = None


def carry(fields: Fields) -> None:
    """Give every line of the current context (asyncio task, or a thread's copy of it) these fields.

    They must not lead to the asyncio task, or each is garbage that only the cyclic collector finds.
    """
    _said_in.set(fields)


def trace_with(fields: Callable[[], Mapping[str, str]] | None) -> None:
    """Give every line the ids of the trace and span that are current then."""
    global _trace_fields
    _trace_fields = fields


def level() -> str:
    """Return the least severity that is printed."""
    return logging.getLevelName(_least).lower()


def prints(severity: int) -> bool:
    """Return whether lines of a severity (a number of ``logging``) are printed now."""
    return severity >= _least


def set_level(name: str) -> None:
    """Change the least severity that is printed, from now on."""
    global _least
    _least = _LEVELS[name]
    logging.getLogger().setLevel(_least)


def _filter(_logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _LEVELS.get(method, logging.CRITICAL) < _least:
        raise structlog.DropEvent
    return event


def _add_carried(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    fields = _said_in.get()
    if fields is not None:
        for key, value in fields().items():
            event.setdefault(key, value)
    if _trace_fields is not None:
        event.update(_trace_fields())
    return event


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
    """Carries what handlers and libraries log into the same stream, with the same fields.

    Outside of attempts and requests only warnings and worse: how libraries come along is nobody's business.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; its traceback, when there is one, becomes a field."""
        if record.levelno < logging.WARNING and _said_in.get() is None:
            return
        fields: dict[str, Any] = {"module": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        logger = cast("FilteringBoundLogger", structlog.get_logger())
        severity = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        logger.log(severity, record.getMessage(), **fields)


def configure(*, level: str, format: Format, process: str, version: str = "") -> None:  # noqa: A002 - the setting's name
    """Set up logging for this process; call once, before anything logs. ``process`` is a field of every line."""
    set_level(level)
    processors: list[Processor] = [
        _filter,
        merge_contextvars,
        _add_carried,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _name_process(process),
    ]
    factory: Any = structlog.BytesLoggerFactory(sys.stdout.buffer)
    match format:
        case "json":
            processors += [structlog.processors.format_exc_info, _redact, _to_line]
        case "ecs":
            processors += [ecs.exception, _redact, ecs.Fields(version), _to_line]
        case "console":
            processors += [structlog.processors.format_exc_info, _redact, structlog.dev.ConsoleRenderer()]
            factory = structlog.PrintLoggerFactory(sys.stdout)
    structlog.configure(
        processors=processors,
        # Everything gets as far as the first processor, because the level may change while the process runs.
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_FromLogging()], level=_least, force=True)


def _name_process(process: str) -> Processor:
    def add(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        event["process"] = process
        return event

    return add


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module; events are called ``subject.what_happened``."""
    return cast("FilteringBoundLogger", structlog.get_logger(module=name.removeprefix("bobrai.")))
