"""Follow-up tasks: what a handler asks to be submitted in the commit that completes its own task.

In: what the handler has said. Out: a Child, checked but for what only its type can tell. ``worker/children.py`` makes a
task of it.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from bobrai.domain import limits, submitting
from bobrai.domain.retry import Retry
from bobrai.domain.unique import Unique

_Queue = Annotated[str, Meta(pattern=limits.QUEUE_PATTERN)]
_Delay = Annotated[float, Meta(ge=0, le=limits.MAX_DELAY_SECONDS)]
_Span = Annotated[float, Meta(ge=0.001, le=limits.MAX_DELAY_SECONDS)]
_Timeout = Annotated[float, Meta(ge=0.001, le=limits.MAX_TIMEOUT_SECONDS)]
_Moment = Annotated[datetime, Meta(tz=True)]
_YEARS: Final = range(1970, 2100)  # that a queue can mean
_MOMENTS: Final = ("run_at", "deadline_at", "expires_at")
# Two ways to say one moment: not both in one submission.
APART: Final = (("run_at", "delay_seconds"), ("deadline_at", "deadline_seconds"), ("expires_at", "expires_seconds"))


class Child(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A task that is to be stored with the outcome of another; its type decides what is None.

    ``payload`` is JSON text. ``unique`` is absent where the type decides, and None where there may be many.
    """

    type: Annotated[str, Meta(pattern=limits.TYPE_PATTERN)]
    payload: str
    queue: _Queue | None = None
    priority: Annotated[int, Meta(ge=0, le=limits.MAX_PRIORITY)] = 0
    delay_seconds: _Delay | None = None
    run_at: _Moment | None = None
    timeout_seconds: _Timeout | None = None
    deadline_seconds: _Span | None = None
    deadline_at: _Moment | None = None
    expires_seconds: _Span | None = None
    expires_at: _Moment | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=limits.MAX_ATTEMPTS)] | None = None
    retry: dict[str, Any] | None = None  # what is to be other than in the type's policy
    unique: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET

    def retry_of(self, policy: Retry) -> Retry:
        """Return the type's policy with what is to be other; raises ValueError for what no policy can say."""
        try:
            return policy.changed(self.retry or {}, self.max_attempts)
        except TypeError as error:
            raise ValueError(f"retry: {error}") from None

    def unique_of(self, rule: Unique | None) -> Unique | None:
        """Return what there is one of at a time, by the type's rule unless it says otherwise; raises ValueError."""
        if self.unique is msgspec.UNSET:
            return rule
        return None if self.unique is None else Unique.of(self.unique)


def child(type_: str, payload: str, options: Mapping[str, Any]) -> Child:
    """Return what is asked for, of a type and JSON text; raises ValueError, or TypeError, that says what is wrong."""
    said = submitting.members(options)
    for name, value in said.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, not {value}")
    try:
        asked = msgspec.convert({"type": type_, "payload": payload, **said}, Child)
    except msgspec.ValidationError as error:
        raise ValueError(_told(str(error))) from None
    _check_times(asked)
    asked.retry_of(Retry())
    asked.unique_of(None)
    return asked


def _check_times(asked: Child) -> None:
    for moment, seconds in APART:
        if getattr(asked, moment) is not None and getattr(asked, seconds) is not None:
            raise ValueError(f"{moment} cannot be combined with {seconds}")
    for name in _MOMENTS:
        at = getattr(asked, name)
        if at is not None and at.year not in _YEARS:
            raise ValueError(f"{name} must be within the years 1970 to 2099, not {at}")
    for what in ("deadline", "expires"):
        at, seconds = getattr(asked, f"{what}_at"), getattr(asked, f"{what}_seconds")
        if at is not None and asked.run_at is not None and at <= asked.run_at:
            raise ValueError(f"{what}_at must be later than run_at")
        if seconds is not None and seconds <= (asked.delay_seconds or 0.0):
            raise ValueError(f"{what}_seconds must be more than delay_seconds")


def _told(error: str) -> str:
    """Return msgspec's words with the name of the value first."""
    words, _, place = error.partition(" - at `$.")
    return f"{place.rstrip('`')}: {words}" if place else words
