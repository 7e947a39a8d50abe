"""The catalogue of events and the code name the same events."""

import ast
from collections.abc import Iterator
from pathlib import Path

import bobrai
from bobrai.telemetry.events import EVENTS

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
SOURCES = sorted(Path(bobrai.__file__).parent.rglob("*.py"))


def _names(argument: ast.expr) -> list[str | None]:
    """The events that the first argument of a call can name; None is one that nobody can tell by reading."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return [argument.value]
    if isinstance(argument, ast.IfExp):
        return [*_names(argument.body), *_names(argument.orelse)]
    return [None]


def _logged() -> Iterator[tuple[str, str, str | None]]:
    """Every call of a module's ``log``: where, at which level, and the event."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
            ):
                for name in _names(node.args[0]):
                    yield f"{source.name}:{node.lineno}", node.func.attr, name


def test_every_event_that_is_logged_is_in_the_catalogue() -> None:
    assert [(where, name) for where, _, name in _logged() if name not in EVENTS] == []


def test_every_event_of_the_catalogue_is_logged() -> None:
    assert set(EVENTS) - {name for _, _, name in _logged()} == set()


def test_the_catalogue_tells_the_right_level() -> None:
    wrong = []
    for where, level, name in _logged():
        told = EVENTS[name or ""].level
        if {"exception": "error"}.get(level, level) != told and name != "http.request":
            wrong.append((where, name, level, told))
    assert wrong == []


def test_every_event_is_explained() -> None:
    for name, event in EVENTS.items():
        assert event.meaning.endswith("."), name
