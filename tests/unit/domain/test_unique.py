"""Rules say what to change when they are wrong, and values are alike exactly when they are the same in JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bobrai.domain import limits
from bobrai.domain.pointer import resolve
from bobrai.domain.unique import Unique, held

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


def hash_of(value: object, rule: Unique | None = None, type_: str = "t", **scope: str) -> bytes:
    """The hash of a payload."""
    return held(rule or Unique(), type_, value, **scope).hash


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"key": "order"}, 'key must be a JSON Pointer such as "/order"'),
        ({"key": "/a~"}, "key must be a JSON Pointer"),
        ({"key": "/a~2"}, "key must be a JSON Pointer"),
        ({"key": None}, "key must be a JSON Pointer"),
        ({"key": "/" + "x" * limits.MAX_KEY_POINTER}, "key must have at most 200 characters, not 201"),
        ({"while_": "running"}, 'while_ must be "waiting", "unfinished" or "always", not \'running\''),
        ({"while_": ["always"]}, "while_ must be"),
        ({"on_conflict": "drop"}, 'on_conflict must be "keep" or "replace", not \'drop\''),
        ({"while_": "always"}, 'while_="always" needs for_seconds'),
        ({"for_seconds": 0}, "for_seconds must be a number above 0"),
        ({"for_seconds": True}, "for_seconds must be a number above 0"),
        ({"for_seconds": "60"}, "for_seconds must be a number above 0"),
        ({"for_seconds": float("nan")}, "for_seconds must be a number above 0"),
        ({"for_seconds": limits.MAX_DELAY_SECONDS + 1}, "for_seconds must be a number above 0"),
    ],
)
def test_a_wrong_rule_says_what_to_change(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        Unique(**fields)
    assert str(refused.value).startswith(words)


def test_a_mapping_says_the_same_with_while() -> None:
    rule = Unique(key="/order", for_seconds=3600, while_="always", on_conflict="replace")
    assert Unique.of({"key": "/order", "for_seconds": 3600, "while": "always", "on_conflict": "replace"}) == rule
    assert Unique.of(rule.said()) == rule
    assert Unique.of({}) == Unique()
    with pytest.raises(ValueError, match="there is no 'while_', only key, for_seconds, while, on_conflict"):
        Unique.of({"while_": "always"})


def test_a_pointer_leads_through_objects_and_arrays() -> None:
    document = {"a": [{"b": 1}, 2], "": 3, "m~n": 4, "x/y": 5, "0": 6, "~1": 7}
    found = {each: resolve(document, each) for each in ("/a/0/b", "/a/1", "/", "/m~0n", "/x~1y", "/0", "/~01")}
    assert found == {"/a/0/b": 1, "/a/1": 2, "/": 3, "/m~0n": 4, "/x~1y": 5, "/0": 6, "/~01": 7}
    assert resolve(document, "") == document


@pytest.mark.parametrize("pointer", ["/b", "/a/2", "/a/-", "/a/-1", "/a/00", "/a/0/b/c", "/a/0/c", "/a/²", "/a/x"])
def test_a_pointer_to_nothing_is_said_so(pointer: str) -> None:
    with pytest.raises(LookupError):
        resolve({"a": [{"b": 1}, 2]}, pointer)


@given(values)
def test_how_a_value_is_written_makes_no_difference(value: Any) -> None:
    turned = json.loads(json.dumps(value, indent=3, sort_keys=True))
    assert hash_of(turned) == hash_of(value)


@given(values, values)
def test_alike_is_equal(one: Any, other: Any) -> None:
    def told(value: Any) -> Any:  # True is 1 in Python, and not in JSON
        if isinstance(value, list):
            return [told(each) for each in value]
        if isinstance(value, dict):
            return {name: told(each) for name, each in value.items()}
        return (isinstance(value, bool), value)

    assert (hash_of(one) == hash_of(other)) == (told(one) == told(other))


def test_type_key_client_and_queue_keep_values_apart() -> None:
    document = {"a": 1, "b": 1}
    hashes = [
        hash_of(document),
        hash_of(document, type_="u"),
        hash_of(document, Unique(key="/a")),
        hash_of(document, Unique(key="/b")),
        hash_of(document, client_id="key:a"),
        hash_of(document, client_id="key:b"),
        hash_of(document, client_id=""),
        hash_of(document, queue="key:a"),
    ]
    assert len(set(hashes)) == len(hashes)
    assert hash_of(document, Unique(for_seconds=1, on_conflict="replace")) == hash_of(document)
