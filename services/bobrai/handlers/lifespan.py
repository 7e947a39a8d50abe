"""What a process has for its handlers from its start to its end: pools, models, clients.

In: functions declared with ``@on_startup`` and ``@on_shutdown``. Out: the order in which they run, and which of their
values each parameter wants that is ``Annotated[…, Depends(function)]``. They are run in ``worker/lifespan.py``.
"""

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from bobrai.domain.errors import ConfigurationError
from bobrai.handlers import signature

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Depends:
    """Marks a parameter: it gets what this start-up function has returned or yielded, once per process."""

    function: Callable[..., Any]


class Hooks:
    """What runs at the start and at the end of a process, in the order of its declaration."""

    def __init__(self) -> None:
        self.startups: list[Callable[..., Any]] = []
        self.shutdowns: list[Callable[..., Any]] = []

    def on_startup(self, function: Function) -> Function:
        """Run a function at the start of each process that runs handlers.

        What it returns is what ``Depends(function)`` stands for. One that yields goes on at the end of the process,
        when no handler runs any more. Raises ConfigurationError for what is no function.
        """
        _declare(self.startups, function, "on_startup")
        return function

    def on_shutdown(self, function: Function) -> Function:
        """Run a function at the end of each process, when no handler runs any more, before what has been started ends.

        Raises ConfigurationError for what is no function without parameters.
        """
        _declare(self.shutdowns, function, "on_shutdown")
        if inspect.signature(function).parameters:
            raise ConfigurationError(f"{signature.where(function)} has parameters; what @on_shutdown runs has none")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(f"{signature.where(function)} yields: put @on_startup above it instead")
        return function

    def in_order(self) -> list[Callable[..., Any]]:
        """Return the start-up functions, each behind those that it depends on; raises ConfigurationError."""
        ordered: list[Callable[..., Any]] = []
        for function in self.startups:
            ordered += _with_needed(function, ordered, ())
        return ordered

    def check(self, where: str, wanted: Iterable[Callable[..., Any]]) -> None:
        """Raise ConfigurationError when something is wanted that no start-up function gives."""
        for function in wanted:
            if function not in self.startups:
                raise ConfigurationError(
                    f"{where} depends on {signature.where(function)}, which nobody starts: put @on_startup above it"
                )


def _declare(there: list[Callable[..., Any]], function: Callable[..., Any], name: str) -> None:
    if not inspect.isfunction(function):
        raise ConfigurationError(f"@{name} belongs on a function, not on {function!r}")
    signature.keep(there, function)


def _with_needed(
    function: Callable[..., Any], ordered: list[Callable[..., Any]], below: tuple[Callable[..., Any], ...]
) -> Iterator[Callable[..., Any]]:
    if function in below:
        circle = " > ".join(signature.where(each) for each in (*below[below.index(function) :], function))
        raise ConfigurationError(f"start-up functions depend on each other in a circle: {circle}")
    if function in ordered:
        return
    for needed in parameters_of(function).values():
        yield from _with_needed(needed, ordered, (*below, function))
    yield function


def parameters_of(function: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Return what each parameter of a start-up function depends on; raises as `wanted_by` does."""
    return wanted_by(function, inspect.signature(function).parameters)


def wanted_by(function: Callable[..., Any], names: Iterable[str], place: str = "") -> dict[str, Callable[..., Any]]:
    """Return the start-up functions that these parameters, at a ``place`` of the signature, depend on.

    Raises NameError for an unknown annotation, and ConfigurationError for a parameter that can be given nothing.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters
    wanted = {}
    for name in names:
        marks = [mark for mark in getattr(hints.get(name), "__metadata__", ()) if isinstance(mark, Depends)]
        if marks:
            wanted[name] = marks[-1].function
        elif parameters[name].default is inspect.Parameter.empty:
            raise ConfigurationError(
                f"{signature.where(function)} has the parameter {name!r}{place}, which is not Annotated[…, Depends(…)] "
                "on a function with @on_startup"
            )
    return wanted
