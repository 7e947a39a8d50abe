"""How lines get here that handlers and libraries say through ``logging`` and structlog.

In: records that reach the root logger, and events of a structlog that nobody has configured. Out: calls of ``say``.
Both ways are defaults: whoever sets up ``logging`` or structlog takes them away, prints as wished, and is not printed
twice.
"""

import contextlib
import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from bobrai import lean
from bobrai.telemetry import rendering
from bobrai.telemetry.logger import LEVELS, Say, Threshold, saying
from bobrai.telemetry.sink import lost

with lean.without("rich"):
    import structlog

_DEEPEST: Final = 5  # handlers that hand their records to others
_LIBRARIES: Final = frozenset({"uvicorn", "aio_pika", "aiormq", "asyncio"})
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
    # Not by getLogger(), which waits for the lock of `logging`: its holder may wait for the one of our handler, which
    # whoever prints a record holds.
    found = logging.root.manager.loggerDict.get(record.name)
    logger: logging.Logger | None = found if isinstance(found, logging.Logger) else logging.root
    while logger is not None:
        for handler in logger.handlers:
            prints = handler is not ours and record.levelno >= handler.level and _is_standard(handler)
            if prints and not _keeps_back(handler, record):
                return True
        logger = logger.parent if logger.propagate else None
    return False


def _keeps_back(handler: logging.Handler, record: logging.LogRecord) -> bool:
    """Return whether one of the handler's filters keeps the record back.

    Only plain functions are asked: one with a state, as that which lets each message through once, must not hear of a
    record twice.
    """
    try:
        return any(inspect.isfunction(each) and not each.__closure__ and not each(record) for each in handler.filters)
    except BaseException:  # noqa: BLE001 - a filter of somebody's own
        return True


def _is_standard(handler: object, depth: int = 0) -> bool:
    """Return whether a handler, or one that it hands its records to, writes to standard output or standard error."""
    try:
        if (target := getattr(handler, "target", None)) is not None and depth < _DEEPEST:  # a MemoryHandler's
            return _is_standard(target, depth + 1)
        if (listener := getattr(handler, "listener", None)) is not None and depth < _DEEPEST:  # a QueueHandler's
            return any(_is_standard(each, depth + 1) for each in listener.handlers)
        stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
        if stream is None:
            return False
        if stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            return True
        return _file(stream.fileno()) in [_file(descriptor) for descriptor in _STANDARD]
    except Exception:  # noqa: BLE001 - a handler or a stream of somebody's own
        return False


def _file(descriptor: int) -> tuple[int, int]:
    # "/dev/stdout" is the same file under another descriptor.
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


class _Message:
    """An event with the arguments that it is to be formatted with."""

    __slots__ = ("args", "event")

    def __init__(self, event: object, args: tuple[Any, ...]) -> None:
        self.event = event
        self.args = args


class _FromStructlog:
    """The one processor of a structlog that nobody has configured: says the event, and drops it."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def __call__(self, _logger: object, method: str, event: MutableMapping[str, Any]) -> Any:
        """Say one event."""
        severity = LEVELS.get(method, logging.INFO)
        if severity >= Threshold.least:
            fields = dict(event)
            message = fields.pop("event", "")
            if type(message) is _Message:
                self._say(severity, "", message.event, message.args, {}, fields)
            else:
                self._say(severity, "", message, (), {}, fields)
        raise structlog.DropEvent


_DEFAULT: Final[type] = structlog.make_filtering_bound_logger(0)  # structlog's own


def _new(cls: type, *args: Any, **kwargs: Any) -> Any:
    """Make a logger that leaves formatting to us, or structlog's own for whoever has set other processors."""
    processors = args[1] if len(args) > 1 else kwargs.get("processors", [])
    ours = not args or (isinstance(processors, list) and [type(each) for each in processors] == [_FromStructlog])
    return object.__new__(cls) if ours else _DEFAULT(*args, **kwargs)


def _is_ours(logger: object) -> bool:
    """Return whether a logger's lines come to us; somebody may have put other processors in the place of ours."""
    return [type(each) for each in getattr(logger, "_processors", ())] == [_FromStructlog]


def _unformatted(name: str) -> Callable[..., Any]:
    """Return structlog's method of this name, which formats its message, without that: the arguments may not fit."""
    method = getattr(_DEFAULT, name)
    at = 1 if name in ("log", "alog") else 0  # the event's place among the arguments

    def packed(args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*args[:at], _Message(args[at], args[at + 1 :])) if len(args) > at + 1 else args

    def say(self: object, /, *args: Any, **fields: Any) -> Any:
        return method(self, *(packed(args) if _is_ours(self) else args), **fields)

    async def asay(self: object, /, *args: Any, **fields: Any) -> Any:
        return await method(self, *(packed(args) if _is_ours(self) else args), **fields)

    return functools.wraps(method)(asay if inspect.iscoroutinefunction(method) else say)


_METHODS: Final = [name for level in (*LEVELS, "log") for name in (level, f"a{level}") if hasattr(_DEFAULT, name)]
_Unformatted: Final = type(
    _DEFAULT.__name__, (_DEFAULT,), {"__new__": _new, **{name: _unformatted(name) for name in _METHODS}}
)


_handler: FromLogging | None = None


def listen(say: Say, is_inside: Callable[[], bool]) -> None:
    """Print what ``logging`` and structlog are told, until somebody sets them up otherwise."""
    global _handler
    _handler = FromLogging(say, is_inside)
    logging.basicConfig(handlers=[_handler], force=True)
    processors = structlog.get_config()["processors"]
    # Changed in place, not configured: to its users, structlog is as if nobody had touched it.
    if not structlog.is_configured() and isinstance(processors, list):
        processors[:] = [_FromStructlog(say)]
        # structlog has no other way to change this without being configured; what is not there stays as it is.
        defaults = getattr(getattr(structlog, "_config", None), "_CONFIG", None)
        if getattr(defaults, "default_wrapper_class", None) is _DEFAULT:
            setattr(defaults, "default_wrapper_class", _Unformatted)  # noqa: B010 - an attribute of nobody's type


def guard_libraries() -> None:
    """Let nothing that the libraries say with which we serve and connect end what they do.

    What handlers' modules add to ``logging`` (a filter, a handler, a factory of records) may raise.
    """
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in _LIBRARIES and "_log" not in vars(logger):
            # In place, since their modules hold these loggers.
            setattr(logger, "_log", functools.partial(_guarded, logger._log))  # noqa: B010, SLF001 - it has no other way


def _guarded(log: Callable[..., None], *args: Any, stacklevel: int = 1, **more: Any) -> None:
    with contextlib.suppress(BaseException):
        log(*args, stacklevel=stacklevel + 1, **more)


def set_level(least: int) -> None:
    """Have ``logging`` make records from this severity on, while they are ours to print."""
    root = logging.getLogger()
    if _handler is not None and _handler in root.handlers:
        root.setLevel(least)
