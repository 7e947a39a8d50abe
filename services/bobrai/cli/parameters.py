"""What arguments may be, beyond what click knows: lists by commas, and periods such as ``90d``."""

import re
from collections.abc import Mapping
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


LIST: Final = _List()
LIFE: Final = _Period(1, limits.MAX_KEY_LIFE_SECONDS)
GRACE: Final = _Period(0, limits.MAX_GRACE_SECONDS)
