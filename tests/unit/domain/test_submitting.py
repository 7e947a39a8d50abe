"""Options of a submission become the members that the HTTP API takes."""

from datetime import UTC, datetime, timedelta

import pytest

from bobrai import Retry, Unique
from bobrai.domain import submitting
from bobrai.handlers.registry import Registry


def test_a_declared_function_stands_for_its_type() -> None:
    @Registry().task("greet.politely")
    def greet(name: str) -> str:
        return name

    assert submitting.type_of(greet) == "greet.politely"
    assert submitting.type_of("greet") == "greet"


def test_a_function_without_a_declaration_stands_for_nothing() -> None:
    with pytest.raises(TypeError, match=r'a function with @task\("name"\)'):
        submitting.type_of(len)


def test_seconds_and_moments_get_the_names_that_say_which_they_are() -> None:
    moment = datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert submitting.members(
        {"delay": timedelta(minutes=1), "timeout": 2.5, "deadline": moment, "expires": timedelta(hours=1)}
    ) == {
        "delay_seconds": 60.0,
        "timeout_seconds": 2.5,
        "deadline_at": "2030-01-31T12:00:00+00:00",
        "expires_seconds": 3600.0,
    }
    assert submitting.members({"run_at": moment}) == {"run_at": "2030-01-31T12:00:00+00:00"}


def test_a_moment_without_an_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="run_at must be a datetime with an offset"):
        submitting.members({"run_at": datetime(2030, 1, 31)})  # noqa: DTZ001


def test_a_retry_policy_says_its_attempts_beside_its_waits() -> None:
    said = submitting.members({"retry": Retry(max_attempts=7, delay_seconds=1)})
    assert said == {
        "max_attempts": 7,
        "retry": {"delay_seconds": 1, "factor": 2.0, "max_delay_seconds": 10.0, "jitter": 0.2},
    }
    assert submitting.members({"retry": {"delay_seconds": 1}}) == {"retry": {"delay_seconds": 1}}


@pytest.mark.parametrize("order", [("retry", "max_attempts"), ("max_attempts", "retry")])
def test_attempts_that_are_said_alone_win_over_those_of_a_policy(order: tuple[str, str]) -> None:
    options = {"retry": Retry(max_attempts=7), "max_attempts": 2}
    assert submitting.members({name: options[name] for name in order})["max_attempts"] == 2


def test_uniqueness_is_said_as_the_api_says_it() -> None:
    assert submitting.members({"unique": Unique(key="/order", while_="waiting")}) == {
        "unique": {"key": "/order", "while": "waiting", "on_conflict": "keep"}
    }
    assert submitting.members({"unique": None}) == {"unique": None}


def test_an_option_that_there_is_not_is_named() -> None:
    with pytest.raises(TypeError, match="there is no option 'prioritiy', only queue, priority"):
        submitting.members({"prioritiy": 1})
