"""Which handlers exist: filled by ``@task`` while modules are imported, read by the worker.

In: module names from ``BOBRAI_HANDLERS``. Out: a Registry in which every handler's types are resolved. Wrong names and
modules that declare nothing are said at start, in words for whoever deploys.
"""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import bobrai
from bobrai.domain import submitting
from bobrai.domain.batch import Batch
from bobrai.domain.errors import ConfigurationError
from bobrai.domain.limiting import Limits
from bobrai.domain.retry import Retry
from bobrai.domain.task import DEFAULT_QUEUE, DEFAULT_TIMEOUT_SECONDS, TaskType
from bobrai.domain.unique import Unique
from bobrai.handlers import builtin, signature
from bobrai.handlers.handler import Exceptions, Handler
from bobrai.handlers.lifespan import Hooks, parameters_of
from bobrai.handlers.middleware import Middlewares
from bobrai.telemetry import rendering

_OURS = str(Path(bobrai.__file__).parent) + os.sep
_MAX_MESSAGE = 2_000  # characters of an exception's

Function = TypeVar("Function", bound=Callable[..., Any])


class Registry:
    """Handlers by the name of their type; the built-in ones are always among them."""

    def __init__(self) -> None:
        self._handlers = {handler.name: handler for handler in builtin.HANDLERS}
        self.hooks = Hooks()
        self.middlewares = Middlewares()

    def task(
        self,
        name: str,
        *,
        queue: str = DEFAULT_QUEUE,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        retry: Retry | None = None,
        non_retryable: Exceptions = (),
        deadline: float | None = None,
        unique: Unique | Mapping[str, Any] | None = None,
        runs_in: Literal["process"] | None = None,
        memory_mb: int | None = None,
        limits: Limits | None = None,
        batch: Batch | None = None,
    ) -> Callable[[Function], Function]:
        """Declare the decorated function as the handler of a type; the function itself stays as it is,
        and stands for its type where tasks are submitted.

        ``timeout`` is in seconds per attempt, ``deadline`` in seconds per task, from its acceptance on. ``queue``,
        ``timeout``, ``deadline``, ``retry`` and ``unique`` hold for tasks that do not say otherwise. An exception of a
        class in ``non_retryable`` fails the task, whatever attempts are left. ``runs_in="process"`` gives each attempt
        a process, which may use ``memory_mb`` MiB. ``limits`` hold for its tasks over all workers. ``batch`` makes one
        call for many tasks: the function takes a list of ``Item``. Raises ConfigurationError for what cannot work.
        """

        def declare(function: Function) -> Function:
            self.add(
                Handler(
                    function,
                    name,
                    queue=queue,
                    timeout=timeout,
                    retry=retry,
                    non_retryable=non_retryable,
                    deadline=deadline,
                    unique=unique,
                    runs_in=runs_in,
                    memory_mb=memory_mb,
                    limits=limits,
                    batch=batch,
                )
            )
            submitting.declare(function, name, is_batched=batch is not None)
            return function

        if not isinstance(name, str):  # a bare @task
            raise ConfigurationError('@task needs the name of a type: write @task("name")')
        return declare

    def add(self, handler: Handler) -> None:
        """Add a handler; raises ConfigurationError when another function has its name."""
        there = self._handlers.get(handler.name)
        # A module that is imported again (under another name, or reloaded) declares the same function once more.
        if there is not None and signature.origin(there.function) != signature.origin(handler.function):
            raise ConfigurationError(
                f"the type {handler.name!r} is declared twice: by {there.where} and by {handler.where}"
            )
        with contextlib.suppress(NameError):  # a type that the module defines further down: `resolve` reads it again
            _ = handler.payload_codec, handler.dependencies
        self._handlers[handler.name] = handler

    def get(self, name: str) -> Handler | None:
        """Return the handler of a type."""
        return self._handlers.get(name)

    def types(self) -> list[TaskType]:
        """Return what a worker announces, by name; raises ConfigurationError for a type without a JSON Schema."""
        return [self._handlers[name].task_type for name in sorted(self._handlers)]

    def resolve(self) -> None:
        """Read the types of every handler and start-up function; raises ConfigurationError when one cannot be."""
        for handler in self._handlers.values():
            handler.resolve()
            self.hooks.check(handler.where, handler.dependencies.values())
            _ = handler.task_type
        for function in self.hooks.in_order():
            self.hooks.check(signature.where(function), parameters_of(function).values())

    def declared(self) -> list[Callable[..., Any]]:
        """Return the functions of all handlers, hooks and middleware."""
        handlers = [handler.function for handler in self._handlers.values()]
        return [*handlers, *self.hooks.startups, *self.hooks.shutdowns, *self.middlewares.all]

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    def __len__(self) -> int:
        return len(self._handlers)


default = Registry()
task = default.task
on_startup = default.hooks.on_startup
on_shutdown = default.hooks.on_shutdown
middleware = default.middlewares.middleware


def load(modules: Sequence[str]) -> Registry:
    """Import the modules, whose ``@task`` declarations fill the default registry, and return that.

    Raises ConfigurationError when a module cannot be imported, declares no handler, or declares one that cannot work.
    """
    for module in modules:
        before = set(default.declared())
        _import(module)
        ours = (function.__module__ for function in default.declared())
        if set(default.declared()) == before and not any(f"{name}.".startswith(f"{module}.") for name in ours):
            raise ConfigurationError(
                f'BOBRAI_HANDLERS names {module!r}, which declares no handler; put @task("name") on a function there'
            )
    default.resolve()
    return default


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except ConfigurationError as error:
        raise ConfigurationError(f"BOBRAI_HANDLERS: {module}: {rendering.text(error, _MAX_MESSAGE)}") from error
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise ConfigurationError(
                f"BOBRAI_HANDLERS names {module!r}, but there is no module {error.name!r}; "
                f"looked in {', '.join(filter(None, sys.path))}"
            ) from error
        raise ConfigurationError(_broken(module, error)) from error
    except BaseException as error:  # SystemExit too: without its handlers a worker is none
        raise ConfigurationError(_broken(module, error)) from error


def _broken(module: str, error: BaseException) -> str:
    message = " ".join(rendering.text(error, _MAX_MESSAGE).split())
    told = f"{rendering.type_of(error)}: {message}" if message else rendering.type_of(error)
    where = rendering.guarded(lambda: _where(error), error)
    return f"BOBRAI_HANDLERS names {module!r}, which cannot be imported: {told} ({where})"


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    # Not where one of our checks stands, but what it was asked for.
    theirs = (each for each in reversed(frames) if not each.filename.startswith((_OURS, "<")))
    last = next(theirs, frames[-1])
    return f"{last.filename}, line {last.lineno}"
