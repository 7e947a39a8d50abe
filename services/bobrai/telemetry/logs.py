"""Structured logs: JSON lines, ECS lines for Elastic, or a readable console on a terminal.

In: an event name and fields from any room, and whatever handlers and libraries say through ``logging`` or structlog.
Out: one line on standard output, with the fields of the request or attempt that it was said in. Never a payload, a
result or a credential. Nothing here raises, or depends on how others set up ``logging`` and structlog: `logger.py` is
what we say things with, `rendering.py` shows values, `masking.py` hides credentials, `sink.py` writes. The names are
in `events.py`, the way of others' lines to here in `foreign.py`.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Generator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO, TypeAlias, cast

import msgspec

from bobrai import lean
from bobrai.telemetry import ecs, foreign, masking, rendering
from bobrai.telemetry.logger import LEVELS, NAMES, BoundLogger, Threshold, saying
from bobrai.telemetry.sink import Sink, lost

with lean.without("rich"):
    import structlog
    from structlog.contextvars import get_contextvars
    from structlog.typing import FilteringBoundLogger

__all__ = [
    "Fields", "Format", "Logger", "captured", "carry", "configure", "get_logger", "level", "prints", "set_level",
    "trace_with",
]  # fmt: skip

Logger: TypeAlias = FilteringBoundLogger
Format: TypeAlias = Literal["json", "ecs", "console"]
Fields: TypeAlias = Callable[[], Mapping[str, object]]

MAX_LINE: Final = 65_536  # bytes
# What every line says of itself: a field that somebody calls so is printed with an underscore behind its name.
_RESERVED: Final = frozenset({"event", "level", "at", "process", "module"})
# Of these, what nobody else can have put there: no secret, whatever it looks like.
_OURS: Final = frozenset({"at", "level", "process"})
_SHORT: Final = 1_024  # characters that need no look at their sum
_SMALL: Final = 1 << 63
_encoder: Final = msgspec.json.Encoder()
_sink: Final = Sink()
_said_in: ContextVar[Fields | None] = ContextVar("bobrai_said_in", default=None)
_trace_fields: Callable[[], Mapping[str, str]] | None = None


class _Configured:
    """How lines look; a readable default until `configure` was called."""

    process = ""
    format: Format = "console"
    in_ecs = ecs.Fields("")
    captured: list[dict[str, Any]] | None = None


_console: Final = structlog.dev.ConsoleRenderer()


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
    return NAMES[Threshold.least]


def prints(severity: int) -> bool:
    """Return whether lines of a severity (a number of ``logging``) are printed now."""
    return severity >= Threshold.least


def set_level(name: str) -> None:
    """Change the least severity that is printed, from now on."""
    Threshold.least = LEVELS[name]
    foreign.set_level(Threshold.least)


def configure(
    *,
    level: str,
    format: Format,  # noqa: A002 - the setting's name
    process: str,
    version: str = "",
    stream: TextIO | None = None,
) -> None:
    """Set up logging for this process; call once, before anything logs. ``process`` is a field of every line.

    Lines go to standard output, or to another stream where that is for a command's result.
    """
    _Configured.process = process
    _Configured.format = format
    _Configured.in_ecs = ecs.Fields(version)
    _sink.open(sys.stdout if stream is None else stream)
    foreign.listen(_say, lambda: _said_in.get() is not None)
    set_level(level)


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module; events are called ``subject.what_happened``."""
    return cast("FilteringBoundLogger", BoundLogger(name.removeprefix("bobrai.")))


@contextlib.contextmanager
def captured() -> Generator[list[dict[str, Any]], None, None]:
    """Keep what is said in a list instead of printing it, whatever its severity; for tests.

    Each entry has ``event``, ``log_level`` and the fields as they were given.
    """
    before, _Configured.captured = _Configured.captured, []
    least, Threshold.least = Threshold.least, logging.DEBUG
    try:
        yield _Configured.captured
    finally:
        _Configured.captured, Threshold.least = before, least


def _say(
    severity: int, module: str, event: object, args: tuple[Any, ...], context: Mapping[str, Any], fields: dict[str, Any]
) -> None:
    """Print one line; whatever comes in, this returns."""
    if saying.now > saying.most:  # a value says things while it is shown, without end
        lost()
        return
    saying.now += 1
    try:
        _sink.write(_line(severity, module, event, args, context, fields))
    except BaseException:  # noqa: BLE001 - logging decides nothing, least of all by an exception
        _say_little(severity, module, event)
    finally:
        saying.now -= 1


def _say_little(severity: int, module: str, event: object) -> None:
    """Print a line of what cannot fail, after all of it has."""
    try:
        little = {"module": module, "event": masking.mask(rendering.text(event)), "fields": "<that cannot be shown>"}
        _sink.write(_encoded(_named(little, severity, little.pop("event"))))
    except BaseException:  # noqa: BLE001 - as above
        lost()


Threshold.say = staticmethod(_say)


def _line(
    severity: int, module: str, event: object, args: tuple[Any, ...], context: Mapping[str, Any], fields: dict[str, Any]
) -> bytes:
    line: dict[str, Any] = {**_safely(get_contextvars), **context, **fields}
    message = _message(event, args, line)
    carried = _said_in.get()
    if carried is not None:
        for key, value in _safely(carried).items():
            line.setdefault(key, value)
    if _trace_fields is not None:
        line.update(_safely(_trace_fields))
    if _Configured.captured is not None:
        _Configured.captured.append({**line, "event": message, "log_level": NAMES[_step(severity)]})
        return b""
    error = rendering.error_of(line.pop("exc_info", None))
    line, clean = _shown(line)
    if module:
        line["module"] = module
    if error is not None:
        _add_error(line, error)
    clean = clean and error is None and masking.is_clean(message) and masking.is_clean(module)
    return _encoded(_named(line, severity, message), clean=clean)


def _safely(fields: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    try:
        return fields()
    except Exception:  # noqa: BLE001 - a line without these fields is better than none
        return {}


def _message(event: object, args: tuple[Any, ...], line: dict[str, Any]) -> str:
    """Return the event's text; arguments that do not fit it become a field."""
    if args:
        try:
            event = str(event) % (args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args)
        except BaseException:  # noqa: BLE001 - they are a handler's, and may do anything when they are formatted
            line["arguments"] = args
    return event if type(event) is str and len(event) <= _SHORT and event.isascii() else rendering.text(event)


def _shown(line: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the fields as plain values under names of their own, and whether surely none holds a credential."""
    shown: dict[str, Any] = {}
    clean = True
    for key, value in line.items():
        name = key if type(key) is str and key not in _RESERVED and key.isascii() and len(key) < 64 else _own_name(key)
        kind = type(value)
        if kind is str and len(value) <= _SHORT and value.isascii():
            clean = clean and masking.is_clean(value) and not masking.tells_secret(name)
            shown[name] = value
        elif value is None or kind is bool:
            shown[name] = value
        elif kind is float or (kind is int and -_SMALL <= value < _SMALL):
            clean = clean and not masking.tells_secret(name)
            shown[name] = value
        else:
            clean = False
            shown[name] = rendering.plain(value)
        if len(shown) >= rendering.MAX_FIELDS:
            break
    return shown, clean


def _own_name(key: object) -> str:
    name = rendering.name_of(key)
    return f"{name}_" if name in _RESERVED else name


def _add_error(line: dict[str, Any], error: BaseException) -> None:
    if _Configured.format == "ecs":
        line |= ecs.error(error)
    else:
        line["exception"] = rendering.traceback_of(error).rstrip("\n")


def _named(line: dict[str, Any], severity: int, event: str) -> dict[str, Any]:
    """Add what every line has, in the names of the format."""
    line["event"] = event
    line["level"] = NAMES[_step(severity)]
    line["at"] = f"{datetime.now(UTC).isoformat(timespec='microseconds')[:-6]}Z"
    line["process"] = _Configured.process
    return _Configured.in_ecs(line) if _Configured.format == "ecs" else line


def _step(severity: int) -> int:
    return min(max(severity // 10 * 10, logging.DEBUG), logging.CRITICAL)


def _encoded(line: dict[str, Any], *, clean: bool = False) -> bytes:
    if _Configured.format == "console":
        if not line["process"]:
            del line["process"]
        data = _for_people(line)
        data = _for_people(_masked(line)) if not clean and masking.is_suspicious(data) else data
        return (data if len(data) <= MAX_LINE else data[:MAX_LINE].decode("utf-8", "ignore").encode()) + b"\n"
    data = _encoder.encode(line)
    if len(data) > MAX_LINE:
        line = _shortened(line)
        data = _encoder.encode(line)
    if not clean and masking.is_suspicious(data):
        data = _encoder.encode(_masked(line))
    return data + b"\n"


def _masked(line: dict[str, Any]) -> dict[str, Any]:
    ours = ecs.OURS if _Configured.format == "ecs" else _OURS
    masked: dict[str, Any] = {}
    for key, value in line.items():
        masked.update({key: value} if key in ours else cast("dict[str, Any]", masking.masked({key: value})))
    return masked


def _for_people(line: object) -> bytes:
    shown = _console(None, "", dict(cast("dict[str, Any]", line)))
    return shown.encode("utf-8", "backslashreplace")


def _shortened(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line that fits: as many fields as there is room for, long text cut, collections left out."""
    left = MAX_LINE // 8  # a character is six bytes at most, and its field's name wants room too
    short: dict[str, Any] = {}
    in_ecs = _Configured.format == "ecs"
    for key, value in line.items() if in_ecs else reversed(line.items()):  # what every line has before the rest
        if isinstance(value, str) and len(value) > _SHORT:
            value = masking.bounded(value, _SHORT)
        elif isinstance(value, dict | list):
            value = "…"
        left -= len(key) + (len(value) if isinstance(value, str) else 20)
        if left < 0:
            break
        short[key] = value
    return short if in_ecs else dict(reversed(short.items()))
