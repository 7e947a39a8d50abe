"""A worked example: failed attempts go to Sentry, and every handler shares one HTTP client.

Run it from this folder with:  pip install sentry-sdk httpx && SENTRY_DSN=https://… bobrai dev --handlers error_tracking
"""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import httpx
import sentry_sdk

from bobrai import CallNext, Context, Depends, PermanentFailure, RetryLater, middleware, on_startup, task


@on_startup
def sentry() -> Iterator[None]:
    """Begin when the process does, and send what is left when it ends."""
    sentry_sdk.init(os.environ.get("SENTRY_DSN"), default_integrations=False)
    yield
    sentry_sdk.flush(timeout=2)


@on_startup
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """Keep one client, with its connections, for all attempts of the process."""
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


@middleware
async def report_errors(ctx: Context, payload: Any, call_next: CallNext) -> Any:
    """Report what an attempt raises, with its task; what it raises to steer is no error."""
    with sentry_sdk.isolation_scope() as scope:
        scope.set_tags({"task_type": ctx.type, "queue": ctx.queue})
        scope.set_context("task", {"id": ctx.task_id, "attempt": ctx.attempt, "request_id": ctx.request_id})
        try:
            return await call_next(payload)
        except (PermanentFailure, RetryLater):
            raise
        except Exception as error:
            sentry_sdk.capture_exception(error)
            raise


@task("fetch", timeout=30)
async def fetch(payload: str, *, client: Annotated[httpx.AsyncClient, Depends(http)]) -> int:
    """Fetch an address and return its status."""
    return (await client.get(payload)).raise_for_status().status_code
