"""Periods, moments and ids on the command line."""

from datetime import UTC, datetime, timedelta

import click
import pytest

from bobrai.cli.parameters import MOMENT, PAST, PERIOD_OR_MOMENT, SPAN, TASK_ID

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86_400), ("0", 0), ("0.5s", 0.5)]
)
def test_a_period_has_a_unit(text: str, seconds: float) -> None:
    assert SPAN.convert(text, None, None) == seconds
    assert PERIOD_OR_MOMENT.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["2030-01-01T00:00:00Z", "2030-01-01T02:00:00+02:00", "2030-01-01 00:00Z"])
def test_a_moment_has_an_offset(text: str) -> None:
    for kind in (MOMENT, PAST, PERIOD_OR_MOMENT):
        assert kind.convert(text, None, None) == NEW_YEAR


def test_a_period_that_has_passed_is_a_moment() -> None:
    assert abs(PAST.convert("2h", None, None) - (datetime.now(UTC) - timedelta(hours=2))) < timedelta(seconds=30)


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (SPAN, "5", "has no unit"), (SPAN, "-5s", "is not a period"), (SPAN, "1000d", "is not between"),
        (MOMENT, "tomorrow", "is not a moment"), (MOMENT, "2030-01-01T00:00:00", "has no offset"),
        (PERIOD_OR_MOMENT, "soon", "is not a moment"), (PAST, "soon", "or a period that has passed since"),
        (TASK_ID, "x", "is not the id of a task"), (TASK_ID, "0", "is not the id"), (TASK_ID, str(2**63), "not the id"),
    ],
)  # fmt: skip
def test_what_is_none_is_told(kind: "click.ParamType[object]", text: str, told: str) -> None:
    with pytest.raises(click.BadParameter, match=told):
        kind.convert(text, None, None)
