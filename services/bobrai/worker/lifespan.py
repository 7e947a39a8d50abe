"""Runs what a process has for its handlers: started before its first attempt, ended after its last.

In: a registry's hooks. Out: the values that its handlers are given. All of it happens in one asyncio task, as what it
opens may have to be closed in the task that opened it; plain functions run in threads.
"""

import asyncio
import contextlib
import contextvars
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from bobrai.domain.errors import ConfigurationError
from bobrai.handlers import lifespan, signature
from bobrai.handlers.registry import Registry
from bobrai.runtime import event_loop
from bobrai.telemetry import logs, rendering

log = logs.get_logger(__name__)

STOP_SECONDS = 5.0  # for everything to end, when no handler runs any more
_MAX_MESSAGE = 2_000  # characters of an exception's


class Lifespan:
    """The life of one process that runs handlers; of a start-up function whose value is given nothing runs."""

    def __init__(self, registry: Registry, given: Mapping[Callable[..., Any], Any] | None = None) -> None:
        self._registry = registry
        self._values = dict(given or {})
        self._ends: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._started = asyncio.Event()
        self._over = asyncio.Event()
        self._living: asyncio.Task[None] | None = None

    async def start(self, seconds: float) -> None:
        """Run the start-up functions; raises ConfigurationError when one fails, or all of them take longer than that.

        What has been started until then is to be ended by ``stop``, also when this is cancelled.
        """
        hooks = self._registry.hooks
        if not hooks.startups and not hooks.shutdowns and not self._values:
            return
        context = contextvars.copy_context()
        context.run(event_loop.inside_handler.set, True)  # noqa: FBT003 - it takes no keywords
        self._living = asyncio.get_running_loop().create_task(self._live(), context=context)
        started = asyncio.ensure_future(self._started.wait())
        try:
            await asyncio.wait({self._living, started}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            started.cancel()
        if self._living.done():
            self._living.result()
        elif not self._started.is_set():
            self._living.cancel()
            raise ConfigurationError(
                f"the start-up functions have not ended within {seconds:g} s (BOBRAI_WORKER_STARTUP_SECONDS)"
            )

    async def stop(self, seconds: float) -> None:
        """End what has been started, the last one first; what takes longer than that is left to the process's end."""
        living = self._living
        if living is None:
            return
        self._over.set()
        if not self._started.is_set():
            living.cancel()
        with contextlib.suppress(BaseException):
            await asyncio.wait({living}, timeout=seconds)
        if not living.done():
            log.error("lifespan.unfinished", seconds=seconds)
            event_loop.forget(living)

    async def _live(self) -> None:
        try:
            for function in self._registry.hooks.in_order():
                if function not in self._values:
                    await self._start(function)
            for handler in self._registry:
                handler.given = {name: self._values[wanted] for name, wanted in handler.dependencies.items()}
            self._started.set()
            await self._over.wait()
        finally:
            for function in reversed(self._registry.hooks.shutdowns) if self._started.is_set() else ():
                await _ended(signature.where(function), partial(_called, function))
            for where, end in reversed(self._ends):
                await _ended(where, end)

    async def _start(self, function: Callable[..., Any]) -> None:
        where = signature.where(function)
        given = {name: self._values[wanted] for name, wanted in lifespan.parameters_of(function).items()}
        try:
            if inspect.isasyncgenfunction(function):
                self._values[function] = await self._enter(where, asynccontextmanager(function)(**given))
            elif inspect.isgeneratorfunction(function):
                self._values[function] = await self._enter(where, _in_threads(contextmanager(function)(**given)))
            else:
                self._values[function] = await _called(function, **given)
        except Exception as error:
            log.exception("lifespan.startup_failed", function=where)
            message = " ".join(rendering.text(error, _MAX_MESSAGE).split())
            raise ConfigurationError(f"{where} failed at the start: {rendering.type_of(error)}: {message}") from error
        log.info("lifespan.started", function=where)

    async def _enter(self, where: str, manager: AbstractAsyncContextManager[Any]) -> Any:
        value = await manager.__aenter__()

        async def end() -> None:
            await manager.__aexit__(None, None, None)

        self._ends.append((where, end))
        return value


async def _ended(where: str, end: Callable[[], Awaitable[None]]) -> None:
    try:
        await end()
    except Exception:
        log.exception("lifespan.shutdown_failed", function=where)
    else:
        log.info("lifespan.ended", function=where)


async def _called(function: Callable[..., Any], **given: Any) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(**given)
    return await asyncio.to_thread(function, **given)


@asynccontextmanager
async def _in_threads(manager: AbstractContextManager[Any]) -> AsyncIterator[Any]:
    yield await asyncio.to_thread(manager.__enter__)
    await asyncio.to_thread(manager.__exit__, None, None, None)
