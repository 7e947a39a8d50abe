"""Calls that a type checker must take, and those, marked so, that it must refuse. Never run."""

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from handlers import (
    Letter,
    batched,
    batched_own,
    batched_plain,
    both,
    both_own,
    both_plain,
    context_only,
    context_only_plain,
    nothing,
    nothing_own,
    nothing_plain,
    payload_only,
    payload_only_plain,
    payload_own,
)

from bobrai import Context, Item, Retry, Unique
from bobrai.client import AsyncClient, AsyncTaskHandle, Client, Submission, TaskHandle


def taken(client: Client) -> None:
    assert_type(client.submit("named"), TaskHandle[Any])
    assert_type(client.submit("named", {"any": 1}, priority=5).result(), Any)
    assert_type(client.submit(both, "x"), TaskHandle[int])
    assert_type(client.submit(both, "x").result(timeout=5), int)
    assert_type(client.submit(both_plain, Letter(to="")).result(), str)
    assert_type(client.submit(both_own, "x").result(), int)
    assert_type(client.submit(payload_only, Letter(to="")).result(), list[int])
    assert_type(client.submit(payload_only_plain, 1), TaskHandle[None])
    assert_type(client.submit(payload_only_plain, None), TaskHandle[None])
    assert_type(client.submit(payload_own, 1).result(), float)
    assert_type(client.submit(context_only).result(), str)
    assert_type(client.submit(context_only_plain).result(), bytes)
    assert_type(client.submit(nothing, priority=1).result(), str)
    assert_type(client.submit(nothing_plain).result(), Letter)
    assert_type(client.submit(batched, 1).result(), str)
    assert_type(client.submit(batched_plain, 1).result(), Letter)
    assert_type(client.submit(batched_own, Letter(to="")).result(), str)
    assert_type(client.submit_many("named", [1, "x"]), list[TaskHandle[Any]])
    assert_type(client.submit_many(both, ["a", "b"], priority=5), list[TaskHandle[int]])
    assert_type(client.submit_many(both_own, (each for each in "ab")), list[TaskHandle[int]])
    assert_type(client.submit_many(payload_only, [Letter(to="")]), list[TaskHandle[list[int]]])
    assert_type(client.submit_many(batched, range(10), idempotency_key="k"), list[TaskHandle[str]])
    assert_type(client.submit_many([Submission(both, "a", priority=5), Submission("named")]), list[TaskHandle[Any]])
    client.submit(both, "x", delay=timedelta(hours=1), timeout=2.5, max_attempts=3, queue="q", idempotency_key="k")
    client.submit(both, "x", run_at=datetime.now(UTC), deadline=3600, expires=datetime.now(UTC), unique=Unique())
    client.submit(both, "x", retry=Retry(max_attempts=5), unique=None)
    client.submit("typed-nothing-own")


def refused(client: Client) -> None:
    client.submit(both, 1)  # refused
    client.submit(both)  # refused
    client.submit(both_plain, {"to": "x"})  # refused
    client.submit(both_own, 1)  # refused
    client.submit(both_own)  # refused
    client.submit(payload_only, "x")  # refused
    client.submit(payload_only)  # refused
    client.submit(payload_only_plain, "x")  # refused
    client.submit(payload_own, "x")  # refused
    client.submit(payload_own)  # refused
    client.submit(context_only, 1)  # refused
    client.submit(nothing, 1)  # refused
    client.submit(nothing_own)  # refused, as a checker cannot tell it from one that takes a payload
    client.submit(batched, "x")  # refused
    client.submit(batched, [1])  # refused
    client.submit(batched)  # refused
    client.submit(both, "x", prioritty=5)  # refused
    client.submit(both, "x", priority="5")  # refused
    client.submit("named", 1, prioritty=5)  # refused
    client.submit("named", 1, run_at="2030-01-01")  # refused
    client.submit(7, 1)  # refused
    client.submit_many(both, [1, 2])  # refused
    client.submit_many(both, "x", prioritty=5)  # refused
    client.submit_many(both)  # refused
    client.submit_many([Submission(both, "a")], priority=5)  # refused
    client.submit_many(["a", "b"])  # refused
    Submission("named", 1, prioritty=5)  # refused
    length: str = client.submit(both, "x").result()  # refused
    print(length)


async def coroutines_taken(client: AsyncClient) -> None:
    assert_type(await client.submit("named", 1), AsyncTaskHandle[Any])
    assert_type(await client.submit(both, "x"), AsyncTaskHandle[int])
    assert_type(await (await client.submit(both_plain, Letter(to=""))).result(), str)
    assert_type(await (await client.submit(payload_own, 1)).result(), float)
    assert_type(await (await client.submit(nothing)).result(), str)
    assert_type(await (await client.submit(context_only_plain)).result(), bytes)
    assert_type(await client.submit(batched, 1), AsyncTaskHandle[str])
    assert_type(await client.submit_many(batched_own, [Letter(to="")]), list[AsyncTaskHandle[str]])
    assert_type(await client.submit_many([Submission(both, "a")]), list[AsyncTaskHandle[Any]])


async def coroutines_refused(client: AsyncClient) -> None:
    await client.submit(both, 1)  # refused
    await client.submit(both)  # refused
    await client.submit(context_only, 1)  # refused
    await client.submit(batched, "x")  # refused
    await client.submit("named", 1, prioritty=5)  # refused
    await client.submit_many(both, [1, 2])  # refused
    client.submit(both, "x").result()  # refused


async def follow_ups_taken(ctx: Context, item: Item[int]) -> None:
    ctx.submit("named", {"any": 1}, priority=5)
    ctx.submit(both, "x", delay=timedelta(minutes=1))
    ctx.submit(both_own, "x")
    ctx.submit(context_only)
    ctx.submit(nothing_plain)
    ctx.submit(batched, 1)
    item.ctx.submit(payload_only, Letter(to=""))
    ctx.submit_many(both_plain, [Letter(to="")])
    ctx.submit_many([Submission(both, "a"), Submission("named")])


async def follow_ups_refused(ctx: Context) -> None:
    ctx.submit(both, 1)  # refused
    ctx.submit(both)  # refused
    ctx.submit(context_only, 1)  # refused
    ctx.submit(batched, "x")  # refused
    ctx.submit("named", 1, prioritty=5)  # refused
    ctx.submit("named", 1, idempotency_key="k")  # refused
    ctx.submit_many(both, [1])  # refused
