"""Whatever is logged becomes a line of bounded size, and nothing that is logged raises."""

import enum
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from bobrai.telemetry import ecs, logs, rendering


class Silent:
    """A value that raises whatever it is asked."""

    def __init__(self, error: type[BaseException] = ValueError) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error("no")

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        raise self.error("no")


class Liar:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("asked for my class")


class NotText:
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Text(str):
    def __str__(self) -> str:
        raise ValueError("no")

    def __len__(self) -> int:
        raise ValueError("no")


class Endless(Mapping[int, int]):
    def __getitem__(self, key: int) -> int:
        return key

    def __iter__(self) -> Iterator[int]:
        number = 0
        while True:
            yield (number := number + 1)

    def __len__(self) -> int:
        return 1


class Talkative:
    def __str__(self) -> str:
        logs.get_logger("bobrai.x").warning("showing", value=self)
        logs.get_logger("bobrai.y").warning("showing %s", self)
        return "talkative"


class Number(enum.IntEnum):
    ONE = 1


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def cycle() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["me"] = value
    return value


def a_million_ways() -> list[Any]:
    value: list[Any] = ["leaf"]
    for _ in range(4):
        value = [value] * 10
    return value


HOSTILE: dict[str, Any] = {
    "str raises": Silent(),
    "str recurses": Silent(RecursionError),
    "str exits": Silent(SystemExit),
    "str interrupts": Silent(KeyboardInterrupt),
    "lies about its class": Liar(),
    "str is no text": NotText(),
    "text that raises": Text("text"),
    "endless": Endless(),
    "logs itself": Talkative(),
    "cycle": cycle(),
    "deep": nested(50_000),
    "wide": a_million_ways(),
    "long": "x" * 5_000_000,
    "long, not ASCII": "🦫" * 100_000,
    "bytes": b"\xff" * 1_000_000,
    "lone surrogate": "a\udcffb",
    "keys": {Silent(): 1, 1: 2, "1": 3, "\udc80": 4, b"k": 5},
    "wide number": 10**6000,
    "65 bits": 2**64,
    "not a number": float("nan"),
    "infinite": float("inf"),
    "group": ExceptionGroup("g", [ValueError(Silent()), ExceptionGroup("h", [TypeError("x" * 100_000)])]),
    "class": Silent,
    "many": list(range(1_000_000)),
}


@pytest.fixture(params=["json", "ecs", "console"])
def line_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives the lines that were printed, in one of the formats."""
    printed: list[bytes] = []
    monkeypatch.setattr(logs._Configured, "format", request.param)
    monkeypatch.setattr(logs._Configured, "in_ecs", ecs.Fields(""))
    monkeypatch.setattr(logs._sink, "write", printed.append)
    return printed


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_value_breaks_its_line_or_makes_it_endless(line_of: list[bytes], kind: str) -> None:
    log, value = logs.get_logger("bobrai.x"), HOSTILE[kind]
    begun = time.process_time()
    log.warning("as a field", value=value)
    log.warning("as an argument %s", value)
    log.warning(value)
    log.bind(value=value).warning("bound")
    log.warning("inside", value={"a": [value]})
    try:
        raise ValueError(value)
    except ValueError:
        log.exception("raised")
    assert time.process_time() - begun < 2
    for line in line_of:
        assert len(line) <= logs.MAX_LINE + 1
        assert line.endswith(b"\n")
        if not line.startswith(b"{"):
            line.decode()
            continue
        shown = json.loads(line)
        assert {"at", "@timestamp"} & set(shown)
    assert len(line_of) >= 6


def test_what_cannot_be_shown_is_a_placeholder_that_names_its_type() -> None:
    assert rendering.plain(Silent()) == "<Silent that cannot be shown>"
    assert rendering.plain({"a": [Silent(), 1]}) == {"a": ["<Silent that cannot be shown>", 1]}
    assert rendering.plain(10**6000) == "<int of 19932 bits>"
    assert rendering.plain("a\udcffb") == "a\\udcffb"


def test_the_classes_of_numbers_and_text_do_not_matter() -> None:
    shown = rendering.plain([Number.ONE, Text("text"), True, 2.5, None, 2**64])
    assert shown == [1, "text", True, 2.5, None, str(2**64)]
    assert isinstance(shown, list)
    assert type(shown[0]) is int
    assert type(shown[1]) is str


def test_two_keys_that_look_alike_are_both_shown() -> None:
    assert rendering.plain({1: "a", "1": "b"}) == {"1": "a", "1_": "b"}


@pytest.mark.parametrize(("message", "args"), [("%d", ("x",)), ("%s %s", (1,)), ("%(a)s", ({"b": 1},)), ("%", (1,))])
def test_arguments_that_do_not_fit_become_a_field(line_of: list[bytes], message: str, args: tuple[Any, ...]) -> None:
    logs.get_logger("bobrai.x").warning(message, *args)
    assert len(line_of) == 1
    assert b"arguments" in line_of[0]


def test_a_field_that_is_called_as_ours_stands_beside_it(line_of: list[bytes]) -> None:
    ours: dict[str, Any] = {"level": 1, "at": 2, "process": 3, "module": 4, "self": 5, "severity": 6}
    logs.get_logger("bobrai.x").warning("said", **ours)
    (line,) = line_of
    if line.startswith(b'{"level_"'):
        shown = json.loads(line)
        assert (shown["level"], shown["module"], shown["event"]) == ("warning", "x", "said")
        assert (shown["level_"], shown["at_"], shown["process_"], shown["module_"]) == (1, 2, 3, 4)
    assert b"severity" in line


def test_a_line_that_is_too_long_keeps_what_every_line_has(
    line_of: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs._Configured, "process", "test")
    logs.get_logger("bobrai.x").warning("long", **{f"field{n}": "é" * 4000 for n in range(300)})
    (line,) = line_of
    assert len(line) <= logs.MAX_LINE + 1
    assert b"long" in line
    assert b"warning" in line


def test_fields_that_cannot_be_had_leave_the_line(line_of: list[bytes]) -> None:
    def fails() -> dict[str, object]:
        raise ValueError("no")

    logs.carry(fails)
    try:
        logs.get_logger("bobrai.x").warning("said")
    finally:
        logs.carry(dict)
    assert b"said" in line_of[0]


def test_a_traceback_of_groups_that_hold_earlier_groups_is_made_within_moments() -> None:
    errors: list[Exception] = [ValueError("first")]
    for attempt in range(40):
        errors.append(ExceptionGroup(f"try {attempt}", list(errors)))
    shown = rendering.traceback_of(errors[-1])
    assert shown.startswith("ExceptionGroup: try 39")
    assert "first" in rendering.traceback_of(errors[5])
