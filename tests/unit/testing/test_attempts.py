"""``bobrai.testing.run`` judges an attempt as the product does, without any server."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from bobrai import Batch, Context, Depends, Item, PermanentFailure, Retry, RetryLater
from bobrai.domain.errors import ConfigurationError
from bobrai.handlers import registry
from bobrai.handlers.registry import Registry
from bobrai.testing import Submitted, run, run_many


@pytest.fixture(autouse=True)
def declared(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry of this test alone."""
    own = Registry()
    monkeypatch.setattr(registry, "default", own)
    return own


class Greeting(BaseModel):
    name: str
    times: int = 1


async def test_a_result_is_what_a_client_would_read(declared: Registry) -> None:
    @declared.task("greet")
    async def greet(ctx: Context, payload: Greeting) -> Greeting:
        return Greeting(name=f"hello {payload.name}", times=ctx.attempt)

    ended = await run(greet, Greeting(name="ada"), attempt=2)
    assert (ended.status, ended.result, ended.reason) == ("done", {"name": "hello ada", "times": 2}, "")
    assert await run("greet", {"name": "ada"}) == await run(greet, {"name": "ada"})


async def test_a_failure_is_retried_with_its_delay_until_the_last_attempt(declared: Registry) -> None:
    @declared.task("fails", retry=Retry(max_attempts=3, delay_seconds=2, factor=3))
    def fails(payload: str) -> None:
        raise OSError("the server is away")

    first, second, last = [await run(fails, "x", attempt=attempt) for attempt in (1, 2, 3)]
    assert [(each.status, each.delay_seconds) for each in (first, second)] == [("retry", 2.0), ("retry", 6.0)]
    assert (last.status, last.reason) == ("failed", "error")
    assert first.error is not None
    assert (first.error.type, first.error.message) == ("OSError", "the server is away")
    assert first.error.traceback.splitlines()[-2].strip() == 'raise OSError("the server is away")'


async def test_handlers_steer_by_their_exceptions(declared: Registry) -> None:
    @declared.task("steers", non_retryable=KeyError)
    async def steers(payload: str) -> None:
        raise {"later": RetryLater(7, "busy"), "never": PermanentFailure("gone"), "key": KeyError("k")}[payload]

    later, never, key = [await run(steers, payload) for payload in ("later", "never", "key")]
    assert (later.status, later.delay_seconds, later.reason) == ("snooze", 7.0, "retry_later")
    assert (never.status, never.reason, key.status, key.reason) == ("failed", "permanent", "failed", "non_retryable")


async def test_payloads_and_results_are_checked_as_in_production(declared: Registry) -> None:
    @declared.task("checked")
    async def checked(payload: Greeting) -> int:
        return payload.name  # type: ignore[return-value]

    assert (await run(checked, {"title": "x"})).reason == "invalid_payload"
    assert (await run(checked, {"name": "x"})).reason == "invalid_result"
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        await run(checked, object())


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_an_attempt_that_takes_too_long_times_out(declared: Registry, kind: str) -> None:
    if kind == "async":

        @declared.task("slow", timeout=30)
        async def slow() -> None:
            await asyncio.Event().wait()
    else:

        @declared.task("slow", timeout=30)
        def slow(ctx: Context) -> None:
            while not ctx.cancelled:
                time.sleep(0.01)

    ended = await run(slow, timeout=0.05)
    assert (ended.status, ended.reason) == ("retry", "timeout")
    assert (await run(slow, timeout=0.05, attempt=3)).status == "failed"
    assert (await run(slow, cancel_after=0.05)).status == "cancelled"


async def test_progress_and_children_are_shown(declared: Registry) -> None:
    @declared.task("parent")
    async def parent(ctx: Context, payload: int) -> None:
        for number in range(payload):
            ctx.progress({"at": number})
            ctx.submit("child", {"n": number}, priority=number)
        if payload == 3:
            raise ValueError("three is too many")

    ended = await run(parent, 2)
    assert list(ended.progress) == [{"at": 0}, {"at": 1}]
    assert list(ended.children) == [Submitted("child", {"n": 0}), Submitted("child", {"n": 1}, {"priority": 1})]
    failed = await run(parent, 3)
    assert (len(failed.progress), list(failed.children)) == (3, [])


async def test_a_batch_gets_all_payloads_in_one_call(declared: Registry) -> None:
    calls: list[int] = []

    @declared.task("batched", batch=Batch(size=10, wait_seconds=30))
    async def batched(items: list[Item[int]]) -> list[int]:
        calls.append(len(items))
        for item in items:
            item.submit("child", item.payload)
            if item.payload == 2:
                item.fail("two")
        return [item.payload * 10 for item in items]

    ended = await run_many(batched, [1, 2, 3])
    assert calls == [3]
    assert [(each.status, each.result, len(each.children)) for each in ended] == [
        ("done", 10, 1), ("failed", None, 0), ("done", 30, 1),
    ]  # fmt: skip
    assert (await run(batched, 5)).result == 50


async def test_what_a_handler_depends_on_is_given_or_started_and_ended(declared: Registry) -> None:
    happened: list[str] = []

    @declared.hooks.on_startup
    def settings() -> Iterator[str]:
        happened.append("settings")
        yield "production"
        happened.append("no settings")

    @declared.hooks.on_startup
    async def pool(name: Annotated[str, Depends(settings)]) -> AsyncIterator[str]:
        happened.append("pool")
        yield f"pool of {name}"
        happened.append("no pool")

    @declared.task("uses")
    async def uses(*, pool: Annotated[str, Depends(pool)]) -> str:
        return pool

    assert (await run(uses, given={pool: "a stand-in"})).result == "a stand-in"
    assert happened == []
    assert (await run(uses, given={settings: "tests"})).result == "pool of tests"
    assert happened == ["pool", "no pool"]
    assert (await run(uses)).result == "pool of production"
    assert happened[2:] == ["settings", "pool", "no pool", "no settings"]


async def test_middleware_runs_around_it(declared: Registry) -> None:
    @declared.middlewares.middleware
    async def doubles(ctx: Context, payload: Any, call_next: Any) -> Any:
        return await call_next(payload * 2)

    @declared.task("shows")
    def shows(payload: int) -> int:
        return payload

    assert (await run(shows, 4)).result == 8


async def test_a_transaction_is_what_the_test_gives(declared: Registry) -> None:
    @dataclass
    class Written:
        rows: list[int]

        async def execute(self, _sql: str, row: int) -> None:
            self.rows.append(row)

    @declared.task("writes")
    async def writes(ctx: Context) -> None:
        async with ctx.transaction() as connection:
            await connection.execute("INSERT …", ctx.task_id)

    written = Written([])
    assert (await run(writes, connection=written, task_id=17)).status == "done"
    assert written.rows == [17]
    without = await run(writes)
    assert without.error is not None
    assert "connection=" in without.error.message


async def test_what_is_no_handler_is_said(declared: Registry) -> None:
    def plain() -> None: ...

    with pytest.raises(ConfigurationError, match=r'a function with @task\("name"\)'):
        await run(plain)
    with pytest.raises(ConfigurationError, match="import its module first"):
        await run("nowhere")
