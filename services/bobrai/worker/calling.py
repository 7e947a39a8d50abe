"""Calls a handler through the middleware around it, or in a thread.

In: an attempt. Out: its value, or what was raised, whatever that is: in a thread and in a coroutine some exceptions
mean something else when they are raised on.
"""

from functools import partial
from typing import Any

from bobrai.handlers import middleware
from bobrai.handlers.middleware import Middleware
from bobrai.worker.attempt import Attempt
from bobrai.worker.threads import Ended, HandlerThreads


async def call(attempt: Attempt, threads: HandlerThreads, middlewares: list[Middleware]) -> Ended:
    """Call the handler, its middleware in the event loop, and return how that ended; a cancel is raised."""
    handler, context, text = attempt.handler, attempt.context, attempt.claim.payload
    if not middlewares:
        return await threads.run(partial(handler.call, context, text))

    async def last(payload: Any) -> Any:
        if handler.is_async:
            return await handler.invoke(context, payload)
        value, error = await threads.run(partial(handler.invoke, context, payload))
        if error is not None:
            raise error
        return value

    return Ended(await middleware.around(middlewares, context, last)(handler.decode(text)), None)
