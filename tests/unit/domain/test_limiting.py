"""Limits say what they bound, and refuse every value that they could not keep."""

import math
from typing import Any

import pytest

from bobrai.domain import limits
from bobrai.domain.limiting import Bounds, Limits, PerKey


@pytest.mark.parametrize(
    ("rate", "burst", "per_second", "capacity"),
    [
        (None, None, math.inf, 0),
        ("10/s", None, 10.0, 10),
        ("30/m", 1, 0.5, 1),
        ("36/h", 20, 0.01, 20),
        ("1/d", None, 1 / 86_400, 1),
        (f"{limits.MAX_RATE}/s", limits.MAX_RATE, 1_000_000.0, 1_000_000),
    ],
)
def test_a_rate_is_so_many_in_a_second_and_its_burst_so_many_at_once(
    rate: str | None, burst: int | None, per_second: float, capacity: int
) -> None:
    bounds = Bounds(rate=rate, burst=burst)
    assert (bounds.per_second, bounds.capacity) == (per_second, capacity)


@pytest.mark.parametrize(
    "most",
    [
        {"concurrency": limits.MAX_CONCURRENCY},
        {"concurrency": 1},
        {"rate": "1/s", "burst": limits.MAX_RATE},
        {"per_key": PerKey("/" + "a" * (limits.MAX_KEY_POINTER - 1))},
        {"per_key": PerKey("/a~1b/0/~0/")},
        {"per_key": PerKey("/")},
        {"per_key": PerKey("/a", weights={str(key): limits.MAX_WEIGHT for key in range(limits.MAX_WEIGHTS)})},
    ],
)
def test_every_bound_may_be_reached(most: dict[str, Any]) -> None:
    assert not Limits(**most).is_empty


@pytest.mark.parametrize("kind", [Limits, lambda **wrong: PerKey("/a", **wrong)], ids=["all", "per_key"])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"concurrency": 0}, "concurrency must be a whole number from 1 to 1000000, not 0"),
        ({"concurrency": limits.MAX_CONCURRENCY + 1}, "concurrency must be a whole number"),
        ({"concurrency": 1.0}, "concurrency must be a whole number"),
        ({"concurrency": True}, "concurrency must be a whole number"),
        ({"concurrency": "3"}, "concurrency must be a whole number"),
        ({"rate": 10}, "rate must be a text such as '10/s', not 10"),
        ({"rate": "0/s"}, "'0/s' is not a rate"),
        ({"rate": "1/w"}, "'1/w' is not a rate"),
        ({"rate": "1.5/s"}, "is not a rate"),
        ({"rate": f"{limits.MAX_RATE + 1}/s"}, "is not a rate"),
        ({"burst": 5}, "a burst needs a rate, such as 10/s"),
        ({"rate": "1/s", "burst": 0}, "burst must be a whole number from 1 to 1000000, not 0"),
        ({"rate": "1/s", "burst": limits.MAX_RATE + 1}, "burst must be a whole number"),
        ({"rate": "1/s", "burst": 2.0}, "burst must be a whole number"),
    ],
)
def test_a_bound_that_cannot_be_kept_is_refused(kind: Any, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kind(**wrong)


@pytest.mark.parametrize(
    "key",
    ["", "account", "account/id", "/a~", "/a~2", "/a\x00", 7, None, "/" + "a" * limits.MAX_KEY_POINTER],
)
def test_a_key_is_a_pointer_into_the_payload(key: Any) -> None:
    with pytest.raises(ValueError, match="key must "):
        PerKey(key)


@pytest.mark.parametrize(
    "weights",
    [
        {"acme": 0}, {"acme": limits.MAX_WEIGHT + 1}, {"acme": 1.0}, {"acme": True}, {"acme": "3"}, {7: 3},
        {str(key): 1 for key in range(limits.MAX_WEIGHTS + 1)}, ["acme"], None, 3,
    ],
)  # fmt: skip
def test_weights_are_numbers_of_turns_by_key(weights: Any) -> None:
    with pytest.raises(ValueError, match="weight"):
        PerKey("/account", weights=weights)


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": "/account", "weights": {"a\x00": 2}},
        {"key": "/account", "weights": {"\ud800": 2}},
        {"key": "/\ud800"},
    ],
)
def test_keys_that_no_payload_can_have_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="is a key that no payload can have"):
        PerKey(**wrong)


def test_a_weight_is_for_no_longer_key_than_can_be_told_apart_by_itself() -> None:
    with pytest.raises(ValueError, match="up to 128 characters"):
        PerKey("/account", weights={"a" * (limits.MAX_KEY_VALUE + 1): 2})


@pytest.mark.parametrize("wrong", ["/account", {"key": "/account"}, Limits(concurrency=1)])
def test_bounds_per_key_are_such(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"per_key must be a bobrai.PerKey, such as PerKey\('/account'\)"):
        Limits(per_key=wrong)


def test_limits_that_say_nothing_are_empty_and_a_key_alone_says_something() -> None:
    assert Limits().is_empty
    assert not Limits(per_key=PerKey("/account")).is_empty, "its values take turns"
    assert not PerKey("/account").is_bound
    assert Limits(concurrency=1).is_bound
    assert PerKey("/account", rate="1/s").is_bound
