"""A worked example: five handlers that use everything a handler can use.

Run it from this folder with:  bobrai dev --handlers newsletter
"""

import asyncio
import time
from datetime import datetime

from pydantic import BaseModel, Field

from bobrai import Context, PermanentFailure, Retry, RetryLater, task


class Letter(BaseModel):
    """What a client sends; a payload that does not fit is refused at submit, with 422."""

    to: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    subject: str = Field(min_length=1, max_length=200)


class Receipt(BaseModel):
    """What the client reads as the task's result."""

    to: str
    sent_at: datetime
    attempt: int


@task("letter", timeout=20, retry=Retry(max_attempts=5, delay_seconds=2, max_delay_seconds=60))
async def send_letter(ctx: Context, payload: Letter) -> Receipt:
    """Send one letter; retried up to five times, with growing pauses."""
    if payload.to.endswith("@nowhere.example"):
        raise PermanentFailure(f"{payload.to} does not exist, no attempt will change that")
    if payload.to.endswith("@busy.example") and ctx.attempt == 1:
        raise RetryLater(3, "the mail server asked us to come back in three seconds")
    await asyncio.sleep(0.1)
    ctx.logger.info("letter.sent")
    return Receipt(to=payload.to, sent_at=datetime.now().astimezone(), attempt=ctx.attempt)


@task("count-primes", timeout=60)
def count_primes(ctx: Context, payload: int) -> int:
    """Count primes below a number: a plain function, so it runs in a thread and may use the CPU."""
    found = 0
    for number in range(2, payload):
        if number % 1000 == 0:
            ctx.progress({"at": number, "of": payload})
            if ctx.cancelled:  # a user's cancel, the timeout, or a shutdown: a thread has to look
                return found
        found += all(number % divisor for divisor in range(2, int(number**0.5) + 1))
    return found


@task("sign-up")
async def sign_up(ctx: Context, payload: Letter) -> str:
    """Write a subscriber and complete the task in one commit: the row is there exactly when the task is done."""
    async with ctx.transaction() as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS subscribers (address text PRIMARY KEY, task_id bigint)")
        await connection.execute(
            "INSERT INTO subscribers (address, task_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", payload.to, ctx.task_id
        )
    ctx.submit(send_letter, Letter(to=payload.to, subject="Welcome"))  # a task of its own, stored in that commit too
    return f"{payload.to} is subscribed"


@task("nap")
async def nap(payload: float) -> str:
    """Wait for some seconds; try to cancel it meanwhile."""
    started = time.monotonic()
    await asyncio.sleep(payload)
    return f"slept {time.monotonic() - started:.1f} s"


@task("hello")
def hello() -> str:
    """Neither context nor payload is needed."""
    return "Hello!"
