"""Reads a handler's signature: what it takes, what its payload and its result are.

In: the declared function. Out: a Signature, or a ConfigurationError that says what to write instead. Types that cannot
be named yet, because a module defines them further down, are read again by ``registry.load``.
"""

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bobrai.domain.errors import ConfigurationError
from bobrai.handlers.batches import Item
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


def types_of(function: Callable[..., Any], signature: Signature, *, batched: bool = False) -> tuple[Any, Any]:
    """Return the types of payload and result, of one task where it is ``batched``; not annotated: any JSON value.

    Raises NameError while an annotation names something that does not exist (yet), and ConfigurationError for a batch
    that is annotated otherwise.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    payload = Any if signature.payload is None else hints.get(signature.payload, Any)
    result = hints.get("return", Any)
    return (_of_item(function, payload), _of_one(function, result)) if batched else (payload, result)


def check_batched(function: Callable[..., Any], signature: Signature) -> None:
    """Raise ConfigurationError unless a function can be called with a list of items."""
    if signature.payload is None or signature.context is not None:
        takes = ", ".join(filter(None, (signature.context, signature.payload)))
        raise ConfigurationError(f"{where(function)} takes ({takes}); with a batch write `items: list[Item[…]]` alone")


def _of_item(function: Callable[..., Any], annotated: Any) -> Any:
    """Return the type of one payload of those that a batch handler takes."""
    if annotated in (Any, list):
        return Any
    inner = typing.get_args(annotated)
    if typing.get_origin(annotated) in (list, Sequence):
        if inner[0] is Item:
            return Any
        if typing.get_origin(inner[0]) is Item:
            return typing.get_args(inner[0])[0]
    raise ConfigurationError(f"{where(function)} takes {_shown(annotated)}; with a batch write `items: list[Item[…]]`")


def _of_one(function: Callable[..., Any], annotated: Any) -> Any:
    """Return the type of one result of those that a batch handler returns."""
    if annotated in (Any, None, type(None)):
        return annotated
    if annotated in (list, tuple):
        return Any
    origin, inner = typing.get_origin(annotated), typing.get_args(annotated)
    if origin in (list, Sequence) or (origin is tuple and len(inner) == 2 and inner[1] is ...):
        return inner[0]
    if origin in (typing.Union, types.UnionType) and len(inner) == 2 and type(None) in inner:
        return _of_one(function, inner[inner[0] is type(None)]) | None
    raise ConfigurationError(
        f"{where(function)} returns {_shown(annotated)}; with a batch write `-> list[…]`, one result for each item, or "
        "`-> None`"
    )


def _shown(annotated: Any) -> str:
    return annotated.__name__ if isinstance(annotated, type) and not typing.get_args(annotated) else str(annotated)
