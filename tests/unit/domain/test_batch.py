"""What ``Batch`` accepts, and that it says what to change."""

from typing import Any

import pytest

from bobrai import Batch


def test_a_batch_waits_a_fifth_of_a_second_and_knows_no_key() -> None:
    assert (Batch(100).size, Batch(100).wait_seconds, Batch(100).key) == (100, 0.2, None)
    assert Batch(size=1, wait_seconds=0, key="/tenant").key == "/tenant"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be a whole number from 1 to 1000, not 0"),
        ({"size": 1001}, "size must be a whole number from 1 to 1000, not 1001"),
        ({"size": True}, "not True"),
        ({"size": 2.0}, "not 2.0"),
        ({"wait_seconds": -1}, "wait_seconds must be a number from 0 to 60, not -1"),
        ({"wait_seconds": 61}, "not 61"),
        ({"wait_seconds": float("nan")}, "not nan"),
        ({"wait_seconds": "1"}, "not '1'"),
        ({"key": "tenant"}, "key must be a JSON Pointer such as \"/tenant\", not 'tenant'"),
        ({"key": ""}, "not ''"),
        ({"key": 1}, "not 1"),
        ({"key": "/" + 200 * "k"}, "key must have at most 200 characters, not 201"),
    ],
)
def test_wrong_batch_says_what_to_change(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"must") as raised:
        Batch(**{"size": 10, **arguments})
    assert message in str(raised.value)
