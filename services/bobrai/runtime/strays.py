"""Errors that nobody waits for: of asyncio tasks and threads that a handler or a library left to themselves.

In: what Python would print on its own, over many lines, with the exception's message, which may quote a payload. Out:
one line of the log with its type and where it was raised.
"""

import asyncio
import threading
from typing import Any

from bobrai.telemetry import logs, rendering

log = logs.get_logger(__name__)


def install() -> None:
    """Tell of stray errors in this process from now on; call from the event loop's thread."""
    asyncio.get_running_loop().set_exception_handler(_in_loop)
    threading.excepthook = _in_thread


def _in_loop(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _tell("event loop", context.get("exception"), rendering.text(context.get("message", "")))


def _in_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is not SystemExit:  # as Python has it: it ends the thread, and that is all
        _tell("thread", failed.exc_value, "")


def _tell(runs_in: str, error: BaseException | None, said: str) -> None:
    if error is None:
        log.error("process.stray_error", runs_in=runs_in, error=said)
        return
    log.error(
        "process.stray_error",
        runs_in=runs_in,
        error_type=rendering.type_of(error),
        stack=rendering.stack_of(error),
    )
