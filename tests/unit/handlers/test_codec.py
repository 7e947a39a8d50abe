"""JSON to payloads and results to JSON, and the exact words of the built-in handlers."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from bobrai.domain import limits
from bobrai.handlers import builtin
from bobrai.handlers.codec import InvalidPayload, InvalidResult, JsonText, PayloadCodec, ResultCodec


class Order(BaseModel):
    number: int
    at: datetime | None = None


def test_typed_payload_is_validated() -> None:
    order = PayloadCodec(Order).decode('{"number": 7, "at": "2026-01-02T03:04:05Z"}')
    assert order == Order(number=7, at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


def test_fault_is_named_by_its_place_and_never_quoted() -> None:
    with pytest.raises(InvalidPayload) as caught:
        PayloadCodec(list[Order]).decode('[{"number": 1}, {"number": "hunter2"}]')
    assert str(caught.value).startswith("/1/number: ")
    assert "hunter2" not in str(caught.value)


def test_many_faults_are_counted() -> None:
    with pytest.raises(InvalidPayload, match="and 40 more"):
        PayloadCodec(list[int]).decode(json.dumps(["x"] * 50))


@pytest.mark.parametrize("text", ["{", '"\\ud800"', "[" * 100_000])
def test_text_that_cannot_be_read_is_an_invalid_payload(text: str) -> None:
    with pytest.raises(InvalidPayload):
        PayloadCodec(Any).decode(text)


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "ü", [1, {"a": None}], 10**30])
def test_any_json_value_survives(value: object) -> None:
    assert PayloadCodec(Any).decode(json.dumps(value)) == value
    assert json.loads(ResultCodec(Any).encode(value)) == value


def test_json_text_is_not_touched() -> None:
    text = '{"a" : 1.0, "a":2}'
    assert ResultCodec(JsonText).encode(PayloadCodec(JsonText).decode(text)) == text
    assert PayloadCodec(JsonText).schema == "{}"


def test_rich_results_become_json() -> None:
    assert ResultCodec(dict[str, Decimal]).encode({"sum": Decimal("1.20")}) == '{"sum":"1.20"}'
    assert ResultCodec(Any).encode({datetime(2026, 1, 1, tzinfo=UTC)}) == '["2026-01-01T00:00:00Z"]'
    assert ResultCodec(None).encode(None) == "null"


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (int, "many"),
        (Order, {"numbr": 1}),
        (None, 1),
        (Any, object()),
        (Any, float("nan")),
        (Any, [float("inf")]),
        (Any, "\ud800"),
        (Any, "x" * limits.MAX_RESULT_BYTES),
    ],
)
def test_result_that_cannot_be_kept_is_refused(wanted: Any, value: object) -> None:
    with pytest.raises(InvalidResult):
        ResultCodec(wanted).encode(value)


def test_words_like_nan_inside_strings_are_fine() -> None:
    assert ResultCodec(Any).encode("NaN and -Infinity") == '"NaN and -Infinity"'


def test_result_of_exactly_the_limit_is_kept() -> None:
    assert len(ResultCodec(Any).encode("x" * (limits.MAX_RESULT_BYTES - 2))) == limits.MAX_RESULT_BYTES


@pytest.mark.parametrize(
    ("payload", "result"),
    [
        ("test task", "processed: test task (1sec)"),
        ({"a": 1, "b": ["ü", None]}, 'processed: {"a":1,"b":["ü",null]} (1sec)'),
        (None, "processed: null (1sec)"),
        (1.5, "processed: 1.5 (1sec)"),
    ],
)
async def test_demo_says_what_it_processed(payload: object, result: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert await builtin.demo(payload) == result
    assert slept == [1]
