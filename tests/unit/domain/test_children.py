"""What a handler asks to be submitted is checked by the rules of the HTTP API."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from bobrai.domain.children import Child, child
from bobrai.domain.retry import Retry
from bobrai.domain.unique import Unique

IN_2030 = datetime(2030, 1, 31, 12, tzinfo=UTC)


def test_what_is_left_out_is_the_types() -> None:
    asked = child("greet", "1", {})
    assert asked == Child("greet", "1")
    assert asked.retry_of(Retry(max_attempts=7)) == Retry(max_attempts=7)
    assert asked.unique_of(Unique(key="/a")) == Unique(key="/a")


def test_every_option_is_kept() -> None:
    asked = child(
        "greet",
        "1",
        {
            "queue": "mail",
            "priority": 5,
            "delay": timedelta(minutes=1),
            "timeout": 2,
            "deadline": IN_2030,
            "expires": 3600,
            "max_attempts": 4,
            "retry": {"delay_seconds": 1},
            "unique": None,
        },
    )
    assert (asked.queue, asked.priority, asked.delay_seconds, asked.timeout_seconds) == ("mail", 5, 60.0, 2.0)
    assert (asked.deadline_at, asked.expires_seconds) == (IN_2030, 3600.0)
    assert asked.retry_of(Retry(factor=3)) == Retry(max_attempts=4, delay_seconds=1, factor=3)
    assert asked.unique_of(Unique()) is None


def test_a_time_for_attempts_makes_as_many_as_may_be() -> None:
    asked = child("greet", "1", {"retry": {"retry_for_seconds": 60}})
    assert asked.retry_of(Retry(max_attempts=2)) == Retry(retry_for_seconds=60)


def test_it_reaches_the_worker_of_a_process_unchanged() -> None:
    for options in ({}, {"run_at": IN_2030, "unique": {"key": "/a"}}, {"unique": None, "retry": {"jitter": 0}}):
        asked = child("greet", '{"a": 1}', options)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(asked), type=Child) == asked


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"queue": "Mail"}, "queue: Expected `str` matching regex"),
        ({"queue": None}, None),
        ({"priority": -1}, "priority: Expected `int` >= 0"),
        ({"priority": 2.5}, "priority: Expected `int`"),
        ({"priority": True}, "priority: Expected `int`"),
        ({"delay": -1}, "delay_seconds: Expected `float` >= 0"),
        ({"delay": timedelta(days=367)}, "delay_seconds: Expected `float` <= 31622400"),
        ({"delay": float("inf")}, "delay_seconds must be a finite number"),
        ({"timeout": 0}, "timeout_seconds: Expected `float` >= 0.001"),
        ({"max_attempts": 101}, "max_attempts: Expected `int` <= 100"),
        ({"delay": 1, "run_at": IN_2030}, "run_at cannot be combined with delay_seconds"),
        ({"run_at": "tomorrow"}, "run_at must be a datetime with an offset"),
        ({"run_at": datetime(2200, 1, 1, tzinfo=UTC)}, "run_at must be within the years 1970 to 2099"),
        ({"run_at": IN_2030, "deadline": IN_2030}, "deadline_at must be later than run_at"),
        ({"delay": 10, "expires": 10}, "expires_seconds must be more than delay_seconds"),
        ({"retry": {"tries": 3}}, "retry: "),
        ({"retry": {"factor": 0.5}}, "factor must be 1 to 100"),
        ({"unique": {"while": "always"}}, "needs for_seconds"),
        ({"unique": {"keys": "/a"}}, "there is no 'keys'"),
    ],
)
def test_what_the_api_would_refuse_is_refused(options: dict[str, Any], told: str | None) -> None:
    if told is None:
        assert child("greet", "1", options).queue is None
        return
    with pytest.raises(ValueError, match="(?s)" + told.replace("(", r"\(")):
        child("greet", "1", options)
