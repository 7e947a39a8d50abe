"""What runs around every attempt: tracing, tenancy, error trackers.

In: functions declared with ``@middleware``. Out: one call through all of them, the first one outermost.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from bobrai.domain.errors import ConfigurationError
from bobrai.handlers import signature
from bobrai.handlers.context import Context

CallNext: TypeAlias = Callable[[Any], Awaitable[Any]]
Middleware: TypeAlias = Callable[[Context, Any, CallNext], Awaitable[Any]]


class Middlewares:
    """Those of a process, in the order of their declaration."""

    def __init__(self) -> None:
        self.all: list[Middleware] = []

    def middleware(self, function: Middleware) -> Middleware:
        """Run an async function ``(ctx, payload, call_next)`` around every attempt of every type.

        ``await call_next(payload)`` runs the rest and returns what the handler returns, or raises what it raises; what
        the function returns or raises stands for that. Raises ConfigurationError for another shape.
        """
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"@middleware belongs on an `async def`, not on {signature.where(function)}")
        if len(inspect.signature(function).parameters) != 3:
            raise ConfigurationError(f"{signature.where(function)} is a middleware: it takes (ctx, payload, call_next)")
        signature.keep(self.all, function)
        return function


def around(middlewares: Sequence[Middleware], ctx: Context, last: CallNext) -> CallNext:
    """Return a call of ``last`` through all of them."""
    call = last
    for each in reversed(middlewares):
        call = partial(_call, each, ctx, call)
    return call


def _call(middleware: Middleware, ctx: Context, call_next: CallNext, payload: Any) -> Awaitable[Any]:
    return middleware(ctx, payload, call_next)
