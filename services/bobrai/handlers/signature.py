"""Reads a handler's signature: what it takes, what its payload and its result are.

In: the declared function. Out: a Signature, or a ConfigurationError that says what to write instead. Types that cannot
be named yet, because a module defines them further down, are read again by ``registry.load``.
"""

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bobrai.domain.errors import ConfigurationError
from bobrai.handlers.context import Context

_SHAPES = "(ctx, payload), (payload), (ctx) or (), and after a * what is Annotated[…, Depends(…)]"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Signature:
    """How a function wants to be called; the parameter names are those of its code, None where it has none."""

    is_async: bool
    context: str | None
    payload: str | None
    named: tuple[str, ...] = ()  # after the ``*``: what the process has for its handlers


def origin(function: Callable[..., Any]) -> tuple[str, int]:
    """Return where a function's code is: the same function of a module that was imported twice has the same."""
    code = inspect.unwrap(function).__code__
    return code.co_filename, code.co_firstlineno


def keep(there: list[Any], function: Callable[..., Any]) -> None:
    """Add a function to those that were declared, in the place of one that a module imported twice has declared."""
    there[:] = [each for each in there if origin(each) != origin(function)]
    there.append(function)


def where(function: Callable[..., Any]) -> str:
    """Return ``module.name`` of a function, for messages."""
    return f"{function.__module__}.{getattr(function, '__qualname__', repr(function))}"


def read(function: Callable[..., Any]) -> Signature:
    """Return the signature; raises ConfigurationError for a shape that no attempt could call."""
    if not inspect.isfunction(function):
        raise ConfigurationError(
            f'@task belongs on a function, not on {function!r}; write @task("name") above `def` or `async def`'
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{where(function)} is a generator; a handler returns its result, it cannot yield")
    names, named = _names(function)
    # A decorator's plain wrapper around an `async def` still returns its coroutine.
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(inspect.unwrap(function))
    if len(names) > 2:
        raise ConfigurationError(f"{where(function)} takes ({', '.join(names)}); a handler takes {_SHAPES}")
    if len(names) == 2:
        if _is_context(function, names[1]):
            raise ConfigurationError(f"{where(function)} takes the context second; it comes first: (ctx, payload)")
        return Signature(is_async, names[0], names[1], named)
    if len(names) == 1 and (names[0] == "ctx" or _is_context(function, names[0])):
        return Signature(is_async, names[0], None, named)
    return Signature(is_async, None, names[0] if names else None, named)


def _names(function: Callable[..., Any]) -> tuple[list[str], tuple[str, ...]]:
    """Return the parameters that are given by position and by name."""
    names, named = [], []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in _POSITIONAL:
            names.append(name)
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            named.append(name)
        else:
            raise ConfigurationError(f"{where(function)} has the parameter {parameter}; a handler takes {_SHAPES}")
    return names, tuple(named)


def _is_context(function: Callable[..., Any], name: str) -> bool:
    annotation = function.__annotations__.get(name)
    return annotation is Context or (isinstance(annotation, str) and annotation.rpartition(".")[2] == "Context")


def types_of(function: Callable[..., Any], signature: Signature) -> tuple[Any, Any]:
    """Return the types of payload and result; what is not annotated is any JSON value.

    Raises NameError while an annotation names something that does not exist (yet).
    """
    hints = typing.get_type_hints(function, include_extras=True)
    payload = Any if signature.payload is None else hints.get(signature.payload, Any)
    return payload, hints.get("return", Any)
