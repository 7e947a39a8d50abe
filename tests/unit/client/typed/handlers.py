"""Handlers of every shape, for the calls beside this file."""

from typing import Annotated

from pydantic import BaseModel

from bobrai import Batch, Context, Depends, Item, on_startup, task


class Letter(BaseModel):
    """What a letter is made of."""

    to: str


class Pool:
    """What a process has for its handlers."""


@on_startup
def pool() -> Pool:
    """Make it."""
    return Pool()


Own = Annotated[Pool, Depends(pool)]


@task("typed-both")
async def both(ctx: Context, payload: str) -> int:
    return len(payload)


@task("typed-both-plain")
def both_plain(ctx: Context, payload: Letter) -> str:
    return payload.to


@task("typed-both-own")
async def both_own(ctx: Context, payload: str, *, pool: Own) -> int:
    return len(payload)


@task("typed-payload")
async def payload_only(payload: Letter) -> list[int]:
    return []


@task("typed-payload-plain")
def payload_only_plain(payload: int | None) -> None:
    pass


@task("typed-payload-own")
def payload_own(payload: int, *, pool: Own) -> float:
    return 0.5


@task("typed-context")
async def context_only(ctx: Context) -> str:
    return ""


@task("typed-context-plain")
def context_only_plain(ctx: Context) -> bytes:
    return b""


@task("typed-nothing")
async def nothing() -> str:
    return ""


@task("typed-nothing-plain")
def nothing_plain() -> Letter:
    return Letter(to="")


@task("typed-nothing-own")
async def nothing_own(*, pool: Own) -> int:
    return 1


@task("typed-batch", batch=Batch(size=10))
async def batched(items: list[Item[int]]) -> list[str]:
    return []


@task("typed-batch-plain", batch=Batch(size=10))
def batched_plain(items: list[Item[int]]) -> list[Letter]:
    return []


@task("typed-batch-own", batch=Batch(size=10))
async def batched_own(items: list[Item[Letter]], *, pool: Own) -> list[str]:
    return []
