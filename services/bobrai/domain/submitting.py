"""How Python code names a task to submit: a type or its handler, a payload, and options.

In: what a caller of the client or of ``ctx.submit`` has said. Out: the members of a submission as the HTTP API names
them, but for the payload, which each caller encodes. What the values may be is checked by whoever takes them.
"""

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias, TypedDict, Unpack

from bobrai.domain.retry import Retry
from bobrai.domain.unique import Unique

Seconds: TypeAlias = timedelta | float
#: A handler's function, or the name of its type.
Named: TypeAlias = str | Callable[..., Any]

_MARK: Final = "__bobrai__"  # of a function that ``@task`` has declared


class _Declared(NamedTuple):
    type: str
    is_batched: bool


class Options(TypedDict, total=False):
    """What a submission may say beside type and payload; the type decides what is left out.

    Seconds are numbers or ``timedelta``; a moment is a ``datetime`` with an offset. ``delay`` or ``run_at`` say when it
    is due, ``timeout`` bounds one attempt, at its ``deadline`` the task fails unless it has ended, and when it
    ``expires`` it is cancelled unless it has started. ``unique=None``: there may be many.
    """

    queue: str
    priority: int
    delay: Seconds
    run_at: datetime
    timeout: Seconds
    deadline: Seconds | datetime
    expires: Seconds | datetime
    max_attempts: int
    retry: Retry | Mapping[str, Any]
    unique: Unique | Mapping[str, Any] | None


class Submission:
    """One task to submit among others: a handler or the name of a type, a payload, and options."""

    __slots__ = ("options", "payload", "task")

    def __init__(self, task: Named, payload: Any = None, **options: Unpack[Options]) -> None:
        self.task = task
        self.payload = payload
        self.options = options


def declare(function: Callable[..., Any], type_: str, *, is_batched: bool = False) -> None:
    """Mark a function as the handler of a type, so that it can be submitted by itself."""
    setattr(function, _MARK, _Declared(type_, is_batched))


def type_of(named: Named) -> str:
    """Return the name of a type, or of the type that a function handles; raises TypeError for one that handles none."""
    if isinstance(named, str):
        return named
    declared = getattr(named, _MARK, None)
    if not isinstance(declared, _Declared):
        raise TypeError(f'{named!r} is neither the name of a task type nor a function with @task("name")')
    return declared.type


def result_of(named: Named) -> Any:
    """Return what one task's result is by a handler's annotation; Any where that says nothing, or for a name."""
    if isinstance(named, str):
        return Any
    result = typing.get_type_hints(named, include_extras=True).get("return", Any)
    declared = getattr(named, _MARK, None)
    if not isinstance(declared, _Declared) or not declared.is_batched:
        return result
    inner = typing.get_args(result)  # of a list, one for each item
    return inner[0] if typing.get_origin(result) in (list, Sequence) and inner else Any


def members(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as the members of a submission, moments as RFC 3339 text.

    Raises TypeError for an option that there is not, and ValueError for a moment without an offset.
    """
    said: dict[str, Any] = {}
    for name, value in options.items():
        if name not in _MEMBERS:
            raise TypeError(f"there is no option {name!r}, only {', '.join(_MEMBERS)}")
        _MEMBERS[name](said, name, value)
    return said


def _plain(said: dict[str, Any], name: str, value: Any) -> None:
    said[name] = value


def _seconds(said: dict[str, Any], name: str, value: Any) -> None:
    said[f"{name}_seconds"] = value.total_seconds() if isinstance(value, timedelta) else value


def _moment(said: dict[str, Any], name: str, value: Any) -> None:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise ValueError(f"{name} must be a datetime with an offset, such as datetime.now(UTC), not {value!r}")
    said[name] = value.isoformat()


def _either(said: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, datetime):
        _moment(said, name, value)
        said[f"{name}_at"] = said.pop(name)
    else:
        _seconds(said, name, value)


def _retry(said: dict[str, Any], _name: str, value: Any) -> None:
    policy = dict(asdict(value) if isinstance(value, Retry) else value)
    attempts = policy.pop("max_attempts", None)
    if attempts is not None:
        said.setdefault("max_attempts", attempts)  # the option of that name has the last word
    said["retry"] = {part: each for part, each in policy.items() if each is not None}


def _unique(said: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, Unique):
        value = {part: each for part, each in value.said().items() if each is not None}
    said[name] = value


_MEMBERS: Final[Mapping[str, Callable[[dict[str, Any], str, Any], None]]] = {
    "queue": _plain,
    "priority": _plain,
    "delay": _seconds,
    "run_at": _moment,
    "timeout": _seconds,
    "deadline": _either,
    "expires": _either,
    "max_attempts": _plain,
    "retry": _retry,
    "unique": _unique,
}
