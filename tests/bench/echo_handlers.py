"""The same nothing to do, in each place where a handler can run; workers load this module by BOBRAI_HANDLERS."""

from typing import Any

from bobrai import task


@task("echo-loop")
async def echo_loop(payload: dict[str, Any]) -> dict[str, Any]:
    """Run in the event loop."""
    return payload


@task("echo-thread")
def echo_thread(payload: dict[str, Any]) -> dict[str, Any]:
    """Run in a thread."""
    return payload


@task("echo-process", runs_in="process")
async def echo_process(payload: dict[str, Any]) -> dict[str, Any]:
    """Run in a process of its own."""
    return payload
