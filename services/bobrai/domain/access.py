"""Who may do what: scopes, the grant that narrows them, and the principal that holds it.

Out: values that answer questions, without I/O. How a request proves who it is from: the room ``access``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from bobrai.domain import limits

# Of queues and types; many stars would take long to match.
GRANT_PATTERN: Final = r"^[A-Za-z0-9._-]*(?:\*[A-Za-z0-9._-]*){0,4}$"


class Scope(StrEnum):
    """What an operation needs; each names the resource and what is done to it."""

    TASKS_SUBMIT = "tasks:submit"
    TASKS_READ = "tasks:read"
    TASKS_PAYLOAD = "tasks:payload"
    TASKS_CONTROL = "tasks:control"
    QUEUES_READ = "queues:read"
    QUEUES_CONTROL = "queues:control"
    ADMIN = "admin"


MEANINGS: Final[dict[Scope, str]] = {
    Scope.TASKS_SUBMIT: "submit tasks",
    Scope.TASKS_READ: "read and list tasks, without what was given to their handlers and what these answered",
    Scope.TASKS_PAYLOAD: "see payloads, results, progress and the texts of errors, of the tasks that it may read",
    Scope.TASKS_CONTROL: "cancel tasks and run them again",
    Scope.QUEUES_READ: "read queues with their figures, task types, and workers",
    Scope.QUEUES_CONTROL: "make, pause, limit and remove queues, and limit task types",
    Scope.ADMIN: "manage keys, and see who changed what; includes every other scope",
}
ALL_SCOPES: Final = frozenset(Scope)
# What the first version let everybody do.
WORKING_SCOPES: Final = ALL_SCOPES - {Scope.ADMIN}


class PrincipalKind(StrEnum):
    """How a principal has shown who it is."""

    ANONYMOUS = "anonymous"
    KEY = "key"
    OIDC = "oidc"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a principal may do: scopes, for the queues and types that match a pattern, or for its own tasks only.

    In a pattern ``*`` stands for any characters. No patterns: every queue, every type.
    """

    scopes: frozenset[Scope]
    queues: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    own_tasks: bool = False

    @classmethod
    def of(
        cls, scopes: Iterable[str], *, queues: Iterable[str] = (), types: Iterable[str] = (), own_tasks: bool = False
    ) -> "Grant":
        """Return the checked grant; raises ValueError that says what to change.

        The scope ``admin`` makes keys with any grant, so that it includes every scope and cannot be narrowed.
        """
        held = frozenset(map(_scope, scopes))
        if not held:
            raise ValueError(f"there must be a scope: {', '.join(Scope)}")
        grant = cls(held, _patterns(queues), _patterns(types), own_tasks)
        if Scope.ADMIN in held:
            if grant.is_narrowed:
                raise ValueError("the scope admin cannot be narrowed to queues, types or own tasks")
            return cls(ALL_SCOPES)
        return grant

    @property
    def named_scopes(self) -> list[str]:
        """The scopes as people write them: ``admin`` alone says them all."""
        return [Scope.ADMIN] if Scope.ADMIN in self.scopes else sorted(self.scopes)

    @property
    def is_narrowed(self) -> bool:
        """Whether there are tasks outside of it."""
        return bool(self.queues or self.types or self.own_tasks)

    @property
    def has_whole_queues(self) -> bool:
        """Whether all tasks of the queues that it reaches are inside of it."""
        return not (self.types or self.own_tasks)

    @property
    def has_whole_types(self) -> bool:
        """Whether all tasks of the types that it reaches are inside of it."""
        return not (self.queues or self.own_tasks)

    def has_queue(self, name: str) -> bool:
        """Whether it reaches the queue of this name, be there one or not."""
        return not self.queues or matches(self.queues, name)

    def has_type(self, name: str) -> bool:
        """Whether it reaches the task type of this name, be there one or not."""
        return not self.types or matches(self.types, name)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in so many seconds, written as ``100/s``, ``30/m`` or ``1000/h``."""

    count: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """Return the rate that a text says; raises ValueError that says what to change."""
        found = _RATE.fullmatch(text.strip())
        if found is None or not 0 < int(found[1]) <= limits.MAX_RATE:
            raise ValueError(f"{text!r} is not a rate: 1 to {limits.MAX_RATE} per s, m, h or d, such as 100/s")
        return cls(int(found[1]), _PERIODS[found[2]])

    def __str__(self) -> str:
        """Return the text that says it."""
        unit = next((unit for unit, seconds in _PERIODS.items() if seconds == self.seconds), f"{self.seconds}s")
        return f"{self.count}/{unit}"


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much a principal may take; None: no bound of its own.

    ``burst``: requests at once after a pause; as many as the rate's count when it is None. ``max_waiting``: tasks.
    """

    rate: Rate | None = None
    burst: int | None = None
    max_waiting: int | None = None

    @classmethod
    def of(cls, *, rate: str | None = None, burst: int | None = None, max_waiting: int | None = None) -> "Allowance":
        """Return the checked allowance; raises ValueError that says what to change."""
        if burst is not None and rate is None:
            raise ValueError("a burst needs a rate, such as 100/s")
        if burst is not None and not 0 < burst <= limits.MAX_RATE:
            raise ValueError(f"a burst is 1 to {limits.MAX_RATE} requests, not {burst}")
        if max_waiting is not None and max_waiting < 0:
            raise ValueError(f"waiting tasks are 0 or more, not {max_waiting}")
        return cls(None if rate is None else Rate.parse(rate), burst, max_waiting)


UNBOUNDED: Final = Allowance()


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left of a rate, in the words of the RateLimit header fields.

    ``quota`` requests are allowed at once, and are all there again after ``window_seconds`` without any.
    ``retry_seconds``: until the next one is allowed; 0: it was.
    """

    policy: str
    quota: int
    window_seconds: int
    left: int
    reset_seconds: int
    retry_seconds: int


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request is from. ``id`` stands in rows, as who submitted a task; ``name`` is for people."""

    kind: PrincipalKind
    id: str
    name: str
    grant: Grant
    allowance: Allowance = UNBOUNDED

    def may(self, scope: Scope) -> bool:
        """Whether it holds the scope."""
        return scope in self.grant.scopes

    def has_task(self, *, queue: str, type: str, client_id: str) -> bool:  # noqa: A002 - what a task's is called
        """Whether a task is inside of its grant; one that is not, is not there."""
        grant = self.grant
        if not grant.is_narrowed:
            return True
        return grant.has_queue(queue) and grant.has_type(type) and (not grant.own_tasks or client_id == self.id)


def anonymous(scopes: Iterable[Scope]) -> Principal:
    """Return whom a request without credentials is from; all of them are one and the same."""
    return Principal(PrincipalKind.ANONYMOUS, "", "anonymous", Grant(frozenset(scopes)))


_RATE: Final = re.compile(r"([0-9]{1,9})\s*/\s*(s|m|h|d)")
_PERIODS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PATTERN: Final = re.compile(GRANT_PATTERN)
_STARS: Final = re.compile(r"(?:\\\*)+")


def matches(patterns: tuple[str, ...], name: str) -> bool:
    """Whether a name matches one of the patterns."""
    return _compiled(patterns).fullmatch(name) is not None


@lru_cache(maxsize=1024)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(_STARS.sub(".*", re.escape(each)) for each in patterns))


def _scope(text: str) -> Scope:
    try:
        return Scope(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a scope: {', '.join(Scope)}") from None


def _patterns(given: Iterable[str]) -> tuple[str, ...]:
    patterns = tuple(dict.fromkeys(given))
    if len(patterns) > limits.MAX_PATTERNS:
        raise ValueError(f"there may be at most {limits.MAX_PATTERNS} patterns")
    for pattern in patterns:
        if not (0 < len(pattern) <= limits.MAX_PATTERN and _PATTERN.fullmatch(pattern)):
            raise ValueError(
                f"{pattern!r} is not a pattern: 1 to {limits.MAX_PATTERN} letters, digits, '.', '_' and '-', and up to "
                "four '*', each for any characters"
            )
    return patterns
