"""The handlers that every worker has: ``demo``, the default type, and ``echo``.

They let the service do something before anyone has written a handler. ``migrate`` announces them, so that the API knows
them before any worker is up.
"""

import asyncio
import json
from typing import Any

from bobrai.domain.task import TaskType
from bobrai.handlers.codec import JsonText
from bobrai.handlers.handler import Handler


async def demo(payload: Any) -> str:
    """Wait one second and say what was processed.

    The payload "test task" gives "processed: test task (1sec)". A string is shown as it is, any other JSON value as
    compact JSON: {"a": 1} gives "processed: {"a":1} (1sec)".
    """
    await asyncio.sleep(1)
    shown = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return f"processed: {shown} (1sec)"


async def echo(payload: JsonText) -> JsonText:
    """Return the payload at once, as it was written."""
    return payload


HANDLERS = (Handler(demo, "demo"), Handler(echo, "echo"))


def types() -> list[TaskType]:
    """Return what ``migrate`` announces."""
    return [handler.task_type for handler in HANDLERS]
