"""Turns are shared by what each lane was given so far, weights counted, and nobody waits for ever."""

from collections import Counter

import pytest

from bobrai.dispatcher import turns as turns_module
from bobrai.dispatcher.turns import CREDIT, LONGEST_WAIT_EVERY, Candidate, Left, Turns

MANY = 100_000


def candidate(lane: str, waiting: int, *limits: Left, weight: float = 1.0) -> Candidate:
    return Candidate(lane, waiting, weight, limits)


def dealt(turns: Turns, room: int, *candidates: Candidate) -> dict[str, int]:
    """Deal with room for so many, and return what each got."""
    shared = Left(room)
    for each in candidates:
        each.limits = [shared, *each.limits]
    turns.deal(candidates)
    return {str(each.lane): each.given for each in candidates}


def test_no_lane_gets_more_than_waits_in_it_or_its_limits_leave() -> None:
    given = dealt(Turns(), 100, candidate("few", 3), candidate("limited", 50, Left(7)), candidate("none", 50, Left(0)))
    assert given == {"few": 3, "limited": 7, "none": 0}


def test_a_limit_that_lanes_share_is_shared_by_them() -> None:
    shared = Left(9)
    given = dealt(Turns(), 100, candidate("a", 50, shared), candidate("b", 50, shared), candidate("c", 50))
    assert given["a"] + given["b"] == 9
    assert abs(given["a"] - given["b"]) <= 2
    assert given["c"] == 50


def test_lanes_that_always_want_turns_get_as_many() -> None:
    turns, got = Turns(), Counter[str]()
    for _ in range(200):
        got.update(dealt(turns, 7, *(candidate(lane, MANY) for lane in "abcde")))
    assert max(got.values()) - min(got.values()) <= 2 * LONGEST_WAIT_EVERY


def test_weights_give_more_turns_in_proportion() -> None:
    turns, got = Turns(), Counter[str]()
    for _ in range(1000):
        got.update(dealt(turns, 10, candidate("light", MANY), candidate("heavy", MANY, weight=3.0)))
    assert 2.0 < got["heavy"] / got["light"] <= 3.1


@pytest.mark.parametrize("flood", [1, 20])
def test_a_lane_with_little_to_do_is_done_soon_however_much_waits_elsewhere(flood: int) -> None:
    turns = Turns()
    others = [f"flood{n}" for n in range(flood)]
    for _ in range(1000):
        dealt(turns, 10, *(candidate(lane, MANY) for lane in others))
    left, dealt_in_all = 100, 0
    while left:
        got = dealt(turns, 10, candidate("new", left), *(candidate(lane, MANY) for lane in others))
        left -= got["new"]
        dealt_in_all += sum(got.values())
    assert dealt_in_all <= 150, "two of three turns or more were its own"


def test_a_lane_that_was_away_has_no_more_than_its_credit() -> None:
    turns = Turns()
    for _ in range(10_000):
        dealt(turns, 10, candidate("steady", MANY))
    got = Counter[str]()
    for _ in range(400):
        got.update(dealt(turns, 10, candidate("steady", MANY), candidate("back", MANY)))
    assert abs(got["back"] - got["steady"]) <= CREDIT + 10


def test_new_lanes_one_after_the_other_do_not_starve_one_that_waits() -> None:
    turns, got = Turns(), 0
    for _ in range(1000):
        dealt(turns, 10, candidate("steady", MANY))
    for number in range(1000):
        got += dealt(turns, 4, candidate("steady", MANY), candidate(f"new{number}", MANY))["steady"]
    assert got >= 4000 / LONGEST_WAIT_EVERY / 2


def test_no_more_lanes_are_remembered_than_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "LANES_KEPT", 50)
    turns = Turns()
    for number in range(1000):
        dealt(turns, 10, candidate(f"lane{number}", 1), candidate("steady", MANY))
    assert len(turns._served) < 500
    assert turns._last.keys() == turns._served.keys()
