"""Which counts of a load keep the promise, and which break it."""

from dataclasses import replace

import pytest

from tests.cluster.load import Seen

GOOD = Seen(
    accepted=100, done=100, rows=100, unknown=0, given_up=0, unfinished=0, interrupted={}, gap=0.1, answers={"201": 100}
)


def test_every_accepted_task_done_once_is_right() -> None:
    assert GOOD.wrong == []
    assert GOOD.refused == 0


def test_a_submit_whose_answer_was_lost_may_have_made_a_row() -> None:
    assert replace(GOOD, rows=102, unknown=2, answers={"201": 100, "cut": 1, "503": 1}).wrong == []


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, done=99, missing=[7]),
        replace(GOOD, done=99, other={"failed": 1}),
        replace(GOOD, rows=101),
        replace(GOOD, rows=103, unknown=2),
        replace(GOOD, unfinished=1),
        replace(GOOD, given_up=1),
    ],
)
def test_a_lost_failed_or_doubled_task_is_wrong(bad: Seen) -> None:
    assert bad.wrong


def test_requests_without_a_201_are_counted_and_named() -> None:
    seen = replace(GOOD, answers={"201": 100, "503": 2, "cut": 1})
    assert seen.refused == 3
    assert "2 x 503, 1 x cut" in str(seen)
