"""Calls a handler through the middleware around it, in a thread, or for many attempts at once.

In: an attempt. Out: its value, or what was raised, whatever that is: in a thread and in a coroutine some exceptions
mean something else when they are raised on.
"""

from functools import partial
from typing import Any

from bobrai.handlers import middleware
from bobrai.handlers.middleware import Middleware
from bobrai.worker.attempt import Attempt
from bobrai.worker.batching import Batches
from bobrai.worker.threads import Ended, HandlerThreads


class Calls:
    """The calls of a worker with so many slots."""

    def __init__(self, middlewares: list[Middleware], slots: int) -> None:
        self._middlewares = middlewares
        self._threads = HandlerThreads()
        self._batches = Batches(self._threads, slots)

    async def call(self, attempt: Attempt) -> Ended:
        """Call the handler, its middleware in the event loop, and return how that ended; a cancel is raised."""
        handler, context, text = attempt.handler, attempt.context, attempt.claim.payload
        batch = handler.batch
        if not self._middlewares:
            if batch is not None:
                return await self._batches.join(attempt, batch, handler.decode(text))
            return await self._threads.run(partial(handler.call, context, text))

        async def last(payload: Any) -> Any:
            if handler.is_direct:
                return await handler.invoke(context, payload)
            if batch is not None:
                value, error = await self._batches.join(attempt, batch, payload)
            else:
                value, error = await self._threads.run(partial(handler.invoke, context, payload))
            if error is not None:
                raise error
            return value

        return Ended(await middleware.around(self._middlewares, context, last)(handler.decode(text)), None)

    def flush(self) -> None:
        """Call at once what waits for more of its type."""
        self._batches.flush()

    def close(self) -> None:
        """Let idle threads end, and let go of calls that do not end."""
        self._threads.close()
        self._batches.close()
