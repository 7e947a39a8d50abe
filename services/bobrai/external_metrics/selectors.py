"""Label selectors, as Kubernetes writes them: ``queue=media``, ``queue in (media, mail), !team``, nothing at all.

In: the text of ``labelSelector``. Out: a Selector that says which labels match. Accepts what Kubernetes' own parser
accepts: equality (= == !=), sets (in, notin), existence (key, !key) and whole numbers (> <).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(r"\s*(?:(?P<sign>==|!=|[=!(),<>])|(?P<word>[^\s=!(),<>]+))")
_KEY: Final = re.compile(r"(?:[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_END: Final = ""


class MalformedSelector(Exception):
    """The text is not a label selector; the message says where."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label; ``operator`` is =, !=, in, notin, exists, !, > or <."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether labels meet the condition; a label that is absent differs from every value."""
        value = labels.get(self.key)
        match self.operator:
            case "=" | "in":
                return value in self.values
            case "!=" | "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
            case _:
                return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        if value is None or not re.fullmatch(r"[+-]?[0-9]+", value):
            return False
        (bound,) = self.values
        return int(value) > int(bound) if self.operator == ">" else int(value) < int(bound)


@dataclass(frozen=True, slots=True)
class Selector:
    """All conditions together; without any, everything matches."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether labels meet every condition."""
        return all(requirement.matches(labels) for requirement in self.requirements)


def parse(text: str) -> Selector:
    """Return the selector that a text is; raises MalformedSelector."""
    return _Parser(text).selector()


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0

    def selector(self) -> Selector:
        requirements: list[Requirement] = []
        while self._next != _END or requirements:
            requirements.append(self._requirement())
            if self._next == _END:
                break
            self._expect(",")
        return Selector(tuple(requirements))

    @property
    def _next(self) -> str:
        return self._tokens[self._at]

    def _take(self) -> str:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _expect(self, wanted: str) -> None:
        found = self._take()
        if found != wanted:
            raise MalformedSelector(f"found {found or 'the end'!r}, expected {wanted!r}")

    def _requirement(self) -> Requirement:
        absent = self._next == "!"
        if absent:
            self._take()
        key = self._key()
        if absent:
            return Requirement(key, "!")
        if self._next in {_END, ","}:
            return Requirement(key, "exists")
        operator = self._take()
        match operator:
            case "in" | "notin":
                return Requirement(key, operator, self._set())
            case "=" | "==" | "!=":
                return Requirement(key, "!=" if operator == "!=" else "=", frozenset({self._exact()}))
            case "<" | ">":
                return Requirement(key, operator, frozenset({self._number()}))
        raise MalformedSelector(f"found {operator!r}, expected one of in, notin, =, ==, !=, >, <")

    def _key(self) -> str:
        key = self._take()
        if not _KEY.fullmatch(key):
            raise MalformedSelector(f"found {key or 'the end'!r}, expected the key of a label")
        return key

    def _exact(self) -> str:
        return "" if self._next in {_END, ","} else _value(self._take())

    def _number(self) -> str:
        value = self._exact()
        if not re.fullmatch(r"[0-9]+", value):
            raise MalformedSelector(f"found {value or 'the end'!r}, expected a whole number")
        return value

    def _set(self) -> frozenset[str]:
        self._expect("(")
        values: set[str] = set()
        while True:
            values.add("" if self._next in {",", ")"} else _value(self._take()))
            if self._next == ")":
                self._take()
                return frozenset(values)
            self._expect(",")


def _tokens(text: str) -> list[str]:
    # Every character is a space, a sign or part of a word, so nothing is passed over.
    tokens = [found["sign"] or found["word"] for found in _TOKEN.finditer(text)]
    return [*tokens, _END]


def _value(text: str) -> str:
    if not _VALUE.fullmatch(text) or not text:
        raise MalformedSelector(f"{text or 'the end'!r} is not the value of a label")
    return text
