"""What a line says of any value: plain, bounded in depth and size, whatever the value does when it is shown.

In: objects of handlers and libraries. Out: text, numbers, lists and dictionaries that every encoder takes. What cannot
be shown becomes a placeholder that names its type. Nothing here raises, but for `formatted`.
"""

import sys
import traceback
from collections.abc import Callable, Mapping
from itertools import islice
from types import TracebackType
from typing import Final

from bobrai.domain.errors import type_name
from bobrai.telemetry import masking

MAX_TEXT: Final = 16_384  # characters of one field
MAX_NAME: Final = 200  # characters of a field's name
MAX_FIELDS: Final = 200  # of one line
MAX_ITEMS: Final = 100  # shown of one collection
MAX_VALUES: Final = 1_000  # shown inside of one field
MAX_DEPTH: Final = 8  # of collections in collections
MAX_EXCEPTIONS: Final = 1_000  # shown with one that holds or follows others
_FRAMES: Final = 60  # of each traceback, the innermost ones
_CUT: Final = "…"
_INT_BITS: Final = 63  # JSON's readers take no wider number for sure


class _Left:
    """How much of one field may still be shown."""

    __slots__ = ("characters", "values")

    def __init__(self) -> None:
        self.characters = MAX_TEXT
        self.values = MAX_VALUES


def plain(value: object) -> object:
    """Return the value in plain types: at most ``MAX_TEXT`` characters, ``MAX_VALUES`` values, ``MAX_DEPTH`` deep."""
    return _plain(value, _Left(), 0)


def text(value: object, limit: int = MAX_TEXT) -> str:
    """Return the value as text that UTF-8 can hold, masked where it is cut."""
    shown = guarded(lambda: exact(value if isinstance(value, str) else str(value)), value)
    return _bounded(shown, limit)


def scrubbed(shown: str) -> str:
    """Return text without the halves of characters that UTF-8 has no bytes for."""
    return shown if shown.isascii() else shown.encode("utf-8", "backslashreplace").decode()


def guarded(show: Callable[[], str], value: object) -> str:
    """Return what the function says, or else the placeholder for the value."""
    try:
        return show()
    except BaseException:  # noqa: BLE001 - a value may raise anything when it is shown, also what is no Exception
        return _placeholder(value)


def type_of(error: BaseException) -> str:
    """Return how the exception's type is called (see ``domain.errors.type_name``)."""
    return guarded(lambda: exact(type_name(error)), error)


def formatted(error: BaseException, frames: TracebackType | None, limit: int) -> str:
    """Return the traceback as Python prints it, of each exception at most so many frames, the innermost ones.

    One that holds too many others is shown alone: Python would write a group's members each time that it meets them,
    and groups that hold earlier groups double them with every level.
    """
    try:
        if not _holds_too_many(error):
            return "".join(traceback.format_exception(type(error), error, frames, limit=-limit))
        left_out = f"It holds more than {MAX_EXCEPTIONS:,} other exceptions, which are not shown."
    except BaseException:  # noqa: BLE001 - it is formatted by calling into it
        left_out = "What belongs to it cannot be shown."
    own = "".join(["Traceback (most recent call last):\n", *traceback.format_tb(frames, -limit)]) if frames else ""
    return f"{own}{type_of(error)}: {text(error)}\n{left_out}\n"


def _holds_too_many(error: BaseException) -> bool:
    """Return whether more exceptions belong to this one than are shown, counted as often as Python would show them."""
    waiting, seen, count = [error], {id(error)}, 0
    while waiting:
        each = waiting.pop()
        count += 1
        for other in (each.__cause__, each.__context__):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)
        if issubclass(type(each), BaseExceptionGroup):
            waiting += islice(each.exceptions, MAX_EXCEPTIONS + 1)  # type: ignore[attr-defined]
        if count + len(waiting) > MAX_EXCEPTIONS + 1:
            return True
    return False


def traceback_of(error: BaseException, limit: int = MAX_TEXT) -> str:
    """Return the traceback as Python prints it; its end when it is longer than the limit."""
    shown = guarded(lambda: formatted(error, error.__traceback__, _FRAMES), error)
    return masking.bounded(scrubbed(shown), limit, keep_end=True) if len(shown) > limit else scrubbed(shown)


def stack_of(error: BaseException) -> str:
    """Return where an exception was raised, without what it says."""
    return _bounded(guarded(lambda: "".join(traceback.format_tb(error.__traceback__, -_FRAMES)), error), MAX_TEXT)


def error_of(exc_info: object) -> BaseException | None:
    """Return the exception that an ``exc_info`` of whatever kind stands for."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        found = exc_info[1] if len(exc_info) > 1 else None
        return found if isinstance(found, BaseException) else None
    return sys.exception() if exc_info else None


def name_of(key: object) -> str:
    """Return a field's name."""
    return text(key, MAX_NAME)


def _plain(value: object, left: _Left, depth: int) -> object:
    left.values -= 1
    if value is None or value is True or value is False:
        return value
    if left.characters <= 0 or left.values < 0:
        return _CUT
    try:
        return _shown(value, left, depth)
    except BaseException:  # noqa: BLE001 - as above
        return _placeholder(value)


def _shown(value: object, left: _Left, depth: int) -> object:
    kind = type(value)  # not isinstance() first: an object may lie about its class, or raise when it is asked
    if issubclass(kind, str | bytes | bytearray):
        return _counted(_content(value), left)
    if issubclass(kind, int):
        number = int.__add__(value, 0)  # type: ignore[operator]
        return number if number.bit_length() <= _INT_BITS else _counted(_wide(number), left)
    if issubclass(kind, float):
        return float.__add__(value, 0.0)  # type: ignore[operator]
    if issubclass(kind, Mapping):
        return _CUT if depth >= MAX_DEPTH else _fields(value, left, depth)  # type: ignore[arg-type]
    if issubclass(kind, list | tuple | set | frozenset):
        if depth >= MAX_DEPTH:
            return _CUT
        shown = [_plain(item, left, depth + 1) for item in islice(value, MAX_ITEMS)]  # type: ignore[call-overload]
        return [*shown, _CUT] if len(value) > MAX_ITEMS else shown  # type: ignore[arg-type]
    return _counted(exact(str(value)), left)


def _fields(value: Mapping[object, object], left: _Left, depth: int) -> dict[str, object]:
    shown: dict[str, object] = {}
    for number, (key, item) in enumerate(value.items()):
        if number >= MAX_ITEMS:
            shown[_CUT] = _CUT
            break
        name = name_of(key)
        while name in shown:  # 1 and "1" are two keys
            name += "_"
        left.characters -= len(name)
        shown[name] = _plain(item, left, depth + 1)
    return shown


def _content(value: object) -> str:
    if isinstance(value, str):
        return exact(value)
    return repr(bytes(value[:MAX_TEXT]))  # type: ignore[index]


def _wide(number: int) -> str:
    # Python refuses to write more than 4,300 digits, because it takes long.
    return str(number) if number.bit_length() <= 1024 else f"<int of {number.bit_length()} bits>"


def exact(value: str) -> str:
    """Return what a text says as a plain one: a type of somebody's own may do as it likes when it is used."""
    return value if type(value) is str else str.__str__(value)


def _counted(shown: str, left: _Left) -> str:
    shown = _bounded(shown, left.characters)
    left.characters -= len(shown)
    return shown


def _bounded(shown: str, limit: int) -> str:
    shown = shown if len(shown) <= limit else masking.bounded(shown, limit)
    return scrubbed(shown)


def _placeholder(value: object) -> str:
    kind = type(value)
    try:
        name = exact(type_name(value) if issubclass(kind, BaseException) else kind.__name__)  # type: ignore[arg-type]
        return scrubbed(f"<{name[:MAX_NAME]} that cannot be shown>")
    except BaseException:  # noqa: BLE001 - a metaclass may do as it likes
        return "<value that cannot be shown>"
