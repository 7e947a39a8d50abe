"""The event loop of every process, and how it is let go of.

In: one coroutine. Out: its end. Connections that are made here stay with this process (see `forks.py`): on this loop
no child could use them. Our own tasks are out of handlers' reach. The loop is never closed: that would wait for
threads, and for tasks that do not want to end.
"""

import asyncio
import weakref
from collections.abc import Coroutine
from contextvars import ContextVar
from traceback import format_tb
from typing import Any, Final

import uvloop

from bobrai.domain.errors import BobraiError, type_name
from bobrai.runtime import forks, signals
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_GOODBYE_SECONDS: Final = 0.5  # for tasks that are left over to end when they are told to
_kept: list[asyncio.AbstractEventLoop] = []  # what is forgotten would be closed
inside_handler = ContextVar("inside_handler", default=False)  # True in what a handler calls and starts


class _Loop(uvloop.Loop):
    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        made = await super().create_connection(*args, **kwargs)
        return _owned(made)

    async def create_unix_connection(self, *args: Any, **kwargs: Any) -> Any:
        made = await super().create_unix_connection(*args, **kwargs)
        return _owned(made)


class _MainLoop(_Loop):
    """The loop on which handlers run as well."""

    def __init__(self) -> None:
        super().__init__()
        self.own: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Any = None, **more: Any
    ) -> "asyncio.Task[Any]":
        if inside_handler.get():
            return super().create_task(coro, name=name, context=context, **more)
        # Ours: whatever task factory a handler has set, and hidden from one that cancels asyncio.all_tasks().
        task = asyncio.Task(coro, loop=self, name=name, context=context, **more)
        asyncio.tasks._unregister_task(task)  # noqa: SLF001 - documented for those who extend asyncio
        self.own.add(task)
        return task

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Do nothing: a handler that calls it would take everybody's threads away."""


def _owned(made: Any) -> Any:
    connected = made[0].get_extra_info("socket")
    if connected is not None:  # it has not been closed already
        forks.own([connected.fileno()])
    return made


def forget(task: "asyncio.Task[Any]") -> None:
    """Let the process end without waiting for a task that does not."""
    asyncio.tasks._unregister_task(task)  # noqa: SLF001 - as above
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - the caller has told of it
    loop = task.get_loop()
    if isinstance(loop, _MainLoop):
        loop.own.discard(task)


def new() -> asyncio.AbstractEventLoop:
    """Return a loop for a thread of this process."""
    before = forks.open_descriptors()
    loop = _Loop()
    forks.own(forks.open_descriptors().difference(before))
    return loop


def run(body: Coroutine[Any, Any, None]) -> None:
    """Run the coroutine to its end; from then on the process has two seconds left."""
    before = forks.open_descriptors()
    loop = _MainLoop()
    _kept.append(loop)

    async def whole() -> None:
        forks.own_loop(loop, before)  # now that it runs: it has opened more
        try:
            await body
        except BaseException as error:
            signals.end_within(signals.SECONDS_TO_LEAVE, 2 if isinstance(error, BobraiError) else 1)
            raise
        else:
            signals.end_within(signals.SECONDS_TO_LEAVE, 0)
        finally:
            await _let_go(loop)

    _until_done(loop, whole())


def _until_done(loop: asyncio.AbstractEventLoop, whole: Coroutine[Any, Any, None]) -> None:
    """Run to the end, whatever a handler's callbacks do to the loop: it goes on where it was interrupted."""
    task = loop.create_task(whole)
    while True:
        try:
            loop.run_until_complete(task)
        except BaseException as error:
            if task.done() or loop.is_closed():
                raise
            # SystemExit of a task that a handler has started, or its call of the loop's stop().
            log.error(  # noqa: TRY400 - what it says may quote a payload
                "process.loop_interrupted", error_type=type_name(error), stack="".join(format_tb(error.__traceback__))
            )
        else:
            return


async def _let_go(loop: _MainLoop) -> None:
    left = (asyncio.all_tasks() | set(loop.own)) - {asyncio.current_task()}
    for task in left:
        task.cancel()
    left.add(loop.create_task(loop.shutdown_asyncgens()))
    await asyncio.wait(left, timeout=_GOODBYE_SECONDS)
