"""The task types that the fault cases run; workers load this module by BOBRAI_HANDLERS.

Every start of a handler is appended to a file that survives the process, so that the invariants can count starts. A
`gate` is a file's name: the handler goes on once a test has made that file.
"""

import asyncio
import ctypes
import os
import signal
import threading
import time
from pathlib import Path

from pydantic import BaseModel

from bobrai import Batch, Context, Item, Retry, task

FOLDER_VARIABLE = "FAULTS_FOLDER"
STARTS = "starts"
QUICK = Retry(max_attempts=3, delay_seconds=0.05, max_delay_seconds=0.1)
GATE_PAUSE_SECONDS = 0.02
BATCH_SIZE = 8
CHILDREN = 3


class Work(BaseModel):
    """How long the handler works, which gate it waits for before that, and whether it ends its process then."""

    seconds: float = 0.0
    gate: str = ""
    dies: bool = False


class Done(BaseModel):
    """Which attempt succeeded, and in which process."""

    attempt: int
    pid: int


def _folder() -> Path:
    return Path(os.environ[FOLDER_VARIABLE])


def _started(ctx: Context) -> Done:
    line = f"{ctx.task_id} {ctx.attempt} {os.getpid()}\n".encode()
    # one write of a line to a file opened for appending is atomic, whichever processes do so at once
    descriptor = os.open(_folder() / STARTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line)
    os.close(descriptor)
    return Done(attempt=ctx.attempt, pid=os.getpid())


async def _work(work: Work) -> None:
    while work.gate and not (_folder() / work.gate).exists():
        await asyncio.sleep(GATE_PAUSE_SECONDS)
    if work.seconds:
        await asyncio.sleep(work.seconds)


@task("plain", retry=QUICK)
async def plain(ctx: Context, payload: Work) -> Done:
    """Work, and return a result."""
    done = _started(ctx)
    await _work(payload)
    return done


@task("effect", retry=QUICK)
async def effect(ctx: Context, payload: Work) -> Done:
    """Work, and record the effect in the commit that completes the task."""
    done = _started(ctx)
    await _work(payload)
    async with ctx.transaction() as connection:
        await connection.execute(
            "INSERT INTO faults.effects (task_id, attempt, pid) VALUES ($1, $2, $3)", ctx.task_id, ctx.attempt, done.pid
        )
    return done


@task("thread", retry=QUICK)
def thread(ctx: Context, payload: Work) -> Done:
    """Work in a thread, where nothing can interrupt it."""
    done = _started(ctx)
    while payload.gate and not (_folder() / payload.gate).exists():
        time.sleep(GATE_PAUSE_SECONDS)
    time.sleep(payload.seconds)
    return done


@task("stubborn", retry=QUICK)
async def stubborn(ctx: Context, payload: Work) -> Done:
    """Work, and return a result even when it is told to stop."""
    done = _started(ctx)
    try:
        await _work(payload)
    except asyncio.CancelledError:
        return done
    return done


@task("block", retry=QUICK)
async def block(ctx: Context, payload: Work) -> Done:
    """Block the whole event loop."""
    done = _started(ctx)
    time.sleep(payload.seconds)
    return done


@task("exit", retry=QUICK)
async def exit_(ctx: Context, payload: Work) -> None:
    """End the worker's process, with no chance to say goodbye."""
    _started(ctx)
    os._exit(1)


@task("segfault", retry=QUICK)
def segfault(ctx: Context, payload: Work) -> None:
    """End the process as a broken C library does."""
    _started(ctx)
    ctypes.string_at(0)


@task("kill-itself", retry=QUICK)
async def kill_itself(ctx: Context, payload: Work) -> None:
    """End the process as the kernel does when memory is short."""
    _started(ctx)
    os.kill(os.getpid(), signal.SIGKILL)


@task("kill-from-thread", retry=QUICK)
async def kill_from_thread(ctx: Context, payload: Work) -> None:
    """End the process from a thread, while the handler waits."""
    _started(ctx)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
    await asyncio.sleep(60)


@task("raise", retry=QUICK)
async def raise_(ctx: Context, payload: Work) -> None:
    """Fail every attempt."""
    _started(ctx)
    raise RuntimeError("this handler always fails")


@task("batch", retry=QUICK, batch=Batch(BATCH_SIZE, wait_seconds=1.0))
async def batch(items: list[Item[Work]]) -> list[Done]:
    """Work for several tasks at once; one of them may end the process for all."""
    done = [_started(item.ctx) for item in items]
    await asyncio.gather(*(_work(item.payload) for item in items))
    if any(item.payload.dies for item in items):
        os._exit(1)
    return done


class Child(BaseModel):
    """Which child it is, and of which attempt."""

    attempt: int
    number: int


@task("child", retry=QUICK)
async def child(payload: Child) -> None:
    """Be there."""


def _submit_children(ctx: Context) -> None:
    ctx.submit(child, Child(attempt=ctx.attempt, number=0), priority=5)
    ctx.submit_many(child, [Child(attempt=ctx.attempt, number=number) for number in range(1, CHILDREN)])


@task("family", retry=QUICK)
async def family(ctx: Context, payload: Work) -> Done:
    """Submit children, and work."""
    _submit_children(ctx)
    return await plain(ctx, payload)


@task("family-thread", retry=QUICK)
def family_thread(ctx: Context, payload: Work) -> Done:
    """Do the same in a thread."""
    _submit_children(ctx)
    return thread(ctx, payload)


@task("family-effect", retry=QUICK)
async def family_effect(ctx: Context, payload: Work) -> Done:
    """Do the same, and record the effect in the commit that completes the task."""
    _submit_children(ctx)
    return await effect(ctx, payload)


@task("family-batch", retry=QUICK, batch=Batch(BATCH_SIZE, wait_seconds=0.1))
async def family_batch(items: list[Item[Work]]) -> list[Done]:
    """Do the same for several tasks at once."""
    for item in items:
        _submit_children(item.ctx)
    return await batch(items)


def _in_process(kind: str) -> str:
    return f"{kind}-process"


_IN_PROCESSES = (
    plain, effect, thread, stubborn, block, exit_, segfault, kill_itself, kill_from_thread, family, family_effect,
)  # fmt: skip
for each in _IN_PROCESSES:
    task(_in_process(each.__name__.strip("_").replace("_", "-")), runs_in="process", retry=QUICK)(each)
