"""What arguments may be, beyond what click knows: lists by commas, periods such as ``90d``, moments, ids of tasks."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from bobrai.domain import limits

_UNITS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_PERIOD: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhdw]?)")


# click's types are generic only in its newest releases, which an application may not be able to install.
class _List(click.ParamType):  # type: ignore[type-arg]
    name = "list"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Return the words between commas."""
        words = [word for word in (part.strip() for part in str(value).split(",")) if word]
        if not words:
            self.fail("is empty: leave it out, or name something", param, ctx)
        return words


class _Period(click.ParamType):  # type: ignore[type-arg]
    """Seconds, from a number with a unit, within bounds."""

    name = "period"

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds; fails with what a period is."""
        found = _PERIOD.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a period: a number, and s, m, h, d or w, such as 90d", param, ctx)
        if not found[2] and float(found[1]):
            self.fail(f"{value!r} has no unit: s, m, h, d or w, such as 90d", param, ctx)
        seconds = float(found[1]) * _UNITS[found[2] or "s"]
        if not self._least <= seconds <= self._most:
            self.fail(f"{value!r} is not between {self._least:g} s and {self._most / 86_400:g} d", param, ctx)
        return seconds


class _Moment(click.ParamType):  # type: ignore[type-arg]
    """A moment with an offset; where ``ago`` says so also a period, which has ended now."""

    name = "moment"

    def __init__(self, *, ago: bool = False) -> None:
        self._ago = ago

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the moment; fails with what one is."""
        if isinstance(value, datetime):
            return value
        if self._ago and _PERIOD.fullmatch(str(value)):
            return datetime.now(UTC) - timedelta(seconds=SPAN.convert(value, param, ctx))
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            more = ", or a period that has passed since, such as 2h" if self._ago else ""
            self.fail(f"{value!r} is not a moment such as 2030-01-31T12:00:00Z{more}", param, ctx)
        if moment.utcoffset() is None:
            self.fail(f"{value!r} has no offset: end it with Z for UTC, or with one such as +02:00", param, ctx)
        return moment


class _PeriodOrMoment(click.ParamType):  # type: ignore[type-arg]
    """Seconds from the acceptance on, or a moment."""

    name = "period or moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | datetime:
        """Return seconds or a moment; fails with what they are."""
        return (SPAN if _PERIOD.fullmatch(str(value)) else MOMENT).convert(value, param, ctx)


class _TaskId(click.ParamType):  # type: ignore[type-arg]
    """The id of a task, or ``-`` for those that standard input holds."""

    name = "id"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the id; fails with what one is."""
        text = str(value)
        if text == STANDARD_INPUT:
            return text
        if not (text.isascii() and text.isdecimal()) or not 0 < int(text) < 2**63:
            self.fail(f"{value!r} is not the id of a task, which is a number", param, ctx)
        return int(text)


STANDARD_INPUT: Final = "-"
LIST: Final = _List()
LIFE: Final = _Period(1, limits.MAX_KEY_LIFE_SECONDS)
GRACE: Final = _Period(0, limits.MAX_GRACE_SECONDS)
SPAN: Final = _Period(0, limits.MAX_DELAY_SECONDS)
MOMENT: Final = _Moment()
PAST: Final = _Moment(ago=True)
PERIOD_OR_MOMENT: Final = _PeriodOrMoment()
TASK_ID: Final = _TaskId()
