"""What crosses the broker keeps its meaning, between releases too, and strangers' bytes never pass for it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bobrai.domain import message
from bobrai.domain.errors import MalformedMessage
from bobrai.domain.message import Hint

hints = st.builds(Hint, st.integers(1, 2**63 - 1), st.integers(0, 2**31 - 1))


@given(st.lists(hints, min_size=1, max_size=50))
def test_every_bundle_survives_the_way(bundle: list[Hint]) -> None:
    assert message.decode(message.encode(bundle)) == bundle


def test_version_1_is_these_very_bytes() -> None:
    """Old messages meet new workers, and the other way round: changing this needs a new version."""
    golden = b'{"v":1,"hints":[[123,0],[9223372036854775807,2147483647]]}'
    assert message.encode([Hint(123, 0), Hint(2**63 - 1, 2**31 - 1)]) == golden
    assert message.decode(golden) == [Hint(123, 0), Hint(2**63 - 1, 2**31 - 1)]


def test_fields_of_a_later_release_are_ignored() -> None:
    assert message.decode(b'{"v":1,"hints":[[1,2]],"trace":"abc"}') == [Hint(1, 2)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"not json",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"v":1}',
        b'{"hints":[[1,0]]}',
        b'{"v":2,"hints":[[1,0]]}',
        b'{"v":"1","hints":[[1,0]]}',
        b'{"v":1,"hints":[]}',
        b'{"v":1,"hints":{}}',
        b'{"v":1,"hints":[1,0]}',
        b'{"v":1,"hints":[[1]]}',
        b'{"v":1,"hints":[[1,0,0]]}',
        b'{"v":1,"hints":[["1",0]]}',
        b'{"v":1,"hints":[[1.5,0]]}',
        b'{"v":1,"hints":[[true,0]]}',
        b'{"v":1,"hints":[[0,0]]}',
        b'{"v":1,"hints":[[-1,0]]}',
        b'{"v":1,"hints":[[1,-1]]}',
        b'{"v":1,"hints":[[9223372036854775808,0]]}',
        b'{"v":1,"hints":[[1,2147483648]]}',
        b'{"v":1,"hints":[[1,0],[2,null]]}',
        b'{"v":1,"hints":[[1,0]]} {}',
    ],
)
def test_what_is_not_a_bundle_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        message.decode(body)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    try:
        assert message.decode(body)
    except MalformedMessage:
        assert body != message.encode([Hint(1, 0)])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["v", "hints", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(json_values)
def test_no_json_raises_anything_else(value: object) -> None:
    try:
        assert message.decode(json.dumps(value).encode())
    except MalformedMessage:
        assert not isinstance(value, dict) or value.get("hints") != [[1, 0]]
