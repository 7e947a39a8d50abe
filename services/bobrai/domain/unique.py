"""Which tasks are alike, and what becomes of one that is alike to another: the rule, and the value that it compares.

In: a rule that a type or a submission says, and a payload. Out: a hash of 32 bytes, the same for tasks that are alike.
Pure; ``store`` keeps the hashes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import msgspec

from bobrai.domain import limits, pointer

While: TypeAlias = Literal["waiting", "unfinished", "always"]
OnConflict: TypeAlias = Literal["keep", "replace"]

WHILES: Final = get_args(While)
ON_CONFLICTS: Final = get_args(OnConflict)
# A JSON Pointer (RFC 6901) as a string; empty: the whole value.
POINTER_PATTERN: Final = limits.KEY_PATTERN.replace(")+$", ")*$")
_NAMES: Final = {"key": "key", "for_seconds": "for_seconds", "while": "while_", "on_conflict": "on_conflict"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique:
    """Of a type's tasks with the same value at ``key``, a JSON Pointer into the payload, there is one at a time.

    ``while_`` says for how long the first one is the only one: ``"waiting"``, until it starts, ``"unfinished"``, until
    it has ended, or ``"always"``; ``for_seconds`` bounds that from its acceptance on, and ``"always"`` needs it.
    ``on_conflict``: ``"keep"`` the first as it is, or ``"replace"`` what is in it as long as it waits.
    """

    key: str = ""
    for_seconds: float | None = None
    while_: While = "unfinished"
    on_conflict: OnConflict = "keep"

    def __post_init__(self) -> None:
        if self.key != "":
            pointer.check(self.key, '"/order", or "" for the whole payload')
        if self.while_ not in WHILES:
            raise ValueError(f"while_ must be {_one_of(WHILES)}, not {self.while_!r}")
        if self.on_conflict not in ON_CONFLICTS:
            raise ValueError(f"on_conflict must be {_one_of(ON_CONFLICTS)}, not {self.on_conflict!r}")
        if self.for_seconds is None:
            if self.while_ == "always":
                raise ValueError('while_="always" needs for_seconds: no task can be the only one for ever')
        elif type(self.for_seconds) not in {int, float} or not 0 < self.for_seconds <= limits.MAX_DELAY_SECONDS:
            raise ValueError(
                f"for_seconds must be a number above 0, up to {limits.MAX_DELAY_SECONDS}, not {self.for_seconds!r}"
            )

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Unique":
        """Return the rule that a mapping says, with ``while`` for ``while_``; raises ValueError."""
        if wrong := [name for name in said if name not in _NAMES]:
            raise ValueError(f"there is no {wrong[0]!r}, only {', '.join(_NAMES)}")
        return cls(**{_NAMES[name]: value for name, value in said.items()})

    def said(self) -> dict[str, Any]:
        """Return it as ``of`` takes it, as JSON has it."""
        return {name: getattr(self, field) for name, field in _NAMES.items()}


class Held(msgspec.Struct, frozen=True, gc=False):
    """What a new task is alike by: tasks with the same ``hash`` are alike; the rest is its rule."""

    hash: bytes
    while_: While
    for_seconds: float | None
    replace: bool


def held(rule: Unique, type_: str, payload: object, *, client_id: str | None = None, queue: str | None = None) -> Held:
    """Return what a task of this type is alike by, among the tasks of this client and queue; None: of all.

    Raises LookupError when the payload has nothing at the rule's key.
    """
    value = pointer.resolve(payload, rule.key)
    text = json.dumps([client_id, queue, type_, rule.key, _canonical(value)], sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode("ascii")).digest()
    return Held(digest, rule.while_, rule.for_seconds, rule.on_conflict == "replace")


def _canonical(value: object) -> object:
    """Return a value that is written alike when it is the same in JSON: 1, 1.0 and 1e0 are one number."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    if isinstance(value, dict):
        return {name: _canonical(each) for name, each in cast("dict[str, object]", value).items()}
    return value


def _one_of(words: tuple[str, ...]) -> str:
    return " or ".join([", ".join(f'"{word}"' for word in words[:-1]), f'"{words[-1]}"'])
