"""Task types of a busy shop: quick, slow, failing, retried and blocking ones, in three queues.

Workers load this module by BOBRAI_HANDLERS; `traffic.py` submits to it.
"""

import asyncio
import random
import time

from bobrai import Context, PermanentFailure, Retry, RetryLater, task

QUICK = Retry(max_attempts=3, delay_seconds=0.2, max_delay_seconds=1)


@task("mail", retry=QUICK)
async def mail(ctx: Context, payload: int) -> int:
    """Quick; one in ten is asked to come back, one in ten raises."""
    await asyncio.sleep(0.01)
    if payload % 10 == 0 and ctx.attempt == 1:
        raise RetryLater(0.5, "the mail server is busy")
    if payload % 10 == 1 and ctx.attempt == 1:
        raise ConnectionError("the mail server hung up")
    return payload


@task("charge", timeout=0.5, retry=QUICK)
async def charge(ctx: Context, payload: int) -> int:
    """One in twenty is refused for good, one in twenty runs into its timeout every time."""
    if payload % 20 == 0:
        raise PermanentFailure("the card has expired")
    await asyncio.sleep(2 if payload % 20 == 1 else 0.03)
    return payload


@task("thumbnail", queue="media")
def thumbnail(ctx: Context, payload: int) -> int:
    """Runs in a thread, for a time that varies."""
    time.sleep(random.uniform(0.01, 0.2))
    return payload


@task("report", queue="reports")
async def report(ctx: Context, payload: int) -> int:
    """Slow; now and then it blocks the event loop."""
    if payload % 50 == 0:
        time.sleep(0.3)
    await asyncio.sleep(random.uniform(0.3, 1.5))
    return payload
