"""Backoff is bounded, grows, and is shortened by jitter only."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bobrai.domain import limits
from bobrai.domain.retry import Retry

policies = st.builds(
    Retry,
    max_attempts=st.integers(1, limits.MAX_ATTEMPTS),
    delay_seconds=st.floats(0, limits.MAX_DELAY_SECONDS),
    factor=st.floats(1, 100),
    max_delay_seconds=st.floats(0, limits.MAX_DELAY_SECONDS),
    jitter=st.floats(0, 1),
)
failures = st.integers(1, limits.MAX_ATTEMPTS)
shares = st.floats(0, 1, exclude_max=True)


@given(policies, failures, shares)
def test_a_wait_lies_between_the_jittered_and_the_nominal_one(policy: Retry, failed: int, share: float) -> None:
    nominal = policy.delay_after(failed, lambda: 0.0)
    wait = policy.delay_after(failed, lambda: share)
    assert 0.0 <= nominal * (1.0 - policy.jitter) * 0.999_999 <= wait <= nominal <= policy.max_delay_seconds


@given(policies, failures)
def test_waits_never_shrink_with_failures(policy: Retry, failed: int) -> None:
    assert policy.delay_after(failed, lambda: 0.0) <= policy.delay_after(failed + 1, lambda: 0.0)


@given(policies)
def test_the_first_wait_is_the_delay_or_the_cap(policy: Retry) -> None:
    assert policy.delay_after(1, lambda: 0.0) == min(policy.delay_seconds, policy.max_delay_seconds)


def test_the_default_is_four_seconds_doubling_to_ten() -> None:
    assert [Retry(jitter=0.0).delay_after(failed) for failed in (1, 2, 3, 400)] == [4.0, 8.0, 10.0, 10.0]


def test_tasks_that_failed_together_do_not_come_back_together() -> None:
    assert len({Retry().delay_after(1) for _ in range(50)}) > 25


def test_a_time_takes_the_place_of_a_number_that_is_not_said() -> None:
    assert Retry().max_attempts == 3
    assert Retry(retry_for_seconds=60).max_attempts == limits.MAX_ATTEMPTS
    assert Retry(retry_for_seconds=60, max_attempts=5).max_attempts == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": limits.MAX_ATTEMPTS + 1},
        {"delay_seconds": -0.1},
        {"delay_seconds": float("nan")},
        {"delay_seconds": limits.MAX_DELAY_SECONDS + 1},
        {"max_delay_seconds": float("inf")},
        {"factor": 0.5},
        {"factor": 101.0},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"retry_for_seconds": 0},
        {"retry_for_seconds": float("nan")},
        {"retry_for_seconds": limits.MAX_DELAY_SECONDS + 1},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Retry(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"max_attempts": 2.5}, "max_attempts must be a whole number, not 2.5"),
        ({"max_attempts": True}, "max_attempts must be a whole number, not True"),
        ({"max_attempts": "3"}, "max_attempts must be a whole number, not '3'"),
        ({"delay_seconds": True}, "delay_seconds must be a number, not True"),
        ({"delay_seconds": None}, "delay_seconds must be a number, not None"),
        ({"delay_seconds": Decimal(1)}, r"delay_seconds must be a number, not Decimal\('1'\)"),
        ({"factor": "2"}, "factor must be a number"),
        ({"retry_for_seconds": "60"}, "retry_for_seconds must be a number, not '60'"),
    ],
)
def test_what_is_no_number_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Retry(**more)
