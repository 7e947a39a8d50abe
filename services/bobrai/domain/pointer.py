"""JSON Pointers (RFC 6901) into payloads: what one may be, and what it finds."""

import re
from typing import Any, Final

from bobrai.domain import limits

_POINTER: Final = re.compile(limits.KEY_PATTERN)
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)


def check(key: Any, example: str) -> None:
    """Raise ValueError, with an example in its words, for what is no pointer to a member of a payload."""
    if not isinstance(key, str) or not _POINTER.fullmatch(key):
        raise ValueError(f"key must be a JSON Pointer such as {example}, not {key!r}")
    if len(key) > limits.MAX_KEY_POINTER:
        raise ValueError(f"key must have at most {limits.MAX_KEY_POINTER} characters, not {len(key)}")
    check_storable(key)


def check_storable(text: str) -> None:
    """Raise ValueError for a text that no payload can have: with NUL, or half of a surrogate pair."""
    if "\x00" in text or text.encode(errors="ignore").decode() != text:
        raise ValueError(f"{text!r} is a key that no payload can have")


def resolve(value: object, pointer: str) -> object:
    """Return what a JSON value has at a JSON Pointer; raises LookupError when it has nothing there."""
    for step in pointer.split("/")[1:]:
        if isinstance(value, dict):
            value = value[step.replace("~1", "/").replace("~0", "~")]
        elif isinstance(value, list) and _INDEX.fullmatch(step):
            value = value[int(step)]
        else:
            raise LookupError(pointer)
    return value
