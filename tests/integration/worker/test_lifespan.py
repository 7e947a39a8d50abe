"""What a process has for its handlers from start to end, and what runs around every attempt."""

import asyncio
import contextvars
import importlib.util
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import sentry_sdk

import bobrai
from bobrai import CallNext, Context, Depends, PermanentFailure
from bobrai.broker.memory import MemoryBroker
from bobrai.domain.errors import ConfigurationError
from bobrai.runtime.lifecycle import Stop
from bobrai.telemetry.logs import captured
from bobrai.worker import main as worker_main
from tests.integration.worker.service import Service
from tests.support.eventually import eventually

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "error_tracking.py"


async def test_handlers_get_what_was_started_and_it_ends_when_none_runs(service: Service) -> None:
    happened: list[str] = []

    @service.registry.hooks.on_startup
    async def pool() -> AsyncIterator[list[str]]:
        happened.append("pool opens")
        yield ["connection"]
        happened.append("pool closes")

    @service.registry.hooks.on_startup
    def model(there: Annotated[list[str], Depends(pool)]) -> Iterator[str]:
        happened.append(f"model loads in {threading.current_thread() is threading.main_thread()}")
        yield f"model with {there[0]}"
        happened.append("model ends")

    @service.registry.hooks.on_startup
    async def number() -> int:
        return 7

    @service.registry.hooks.on_shutdown
    async def goodbye() -> None:
        happened.append("goodbye")

    begun = asyncio.Event()

    @service.task("async")
    async def use(ctx: Context, *, connections: Annotated[list[str], Depends(pool)]) -> str:
        begun.set()
        await asyncio.sleep(0.2)
        happened.append("handler ends")
        return connections[0]

    @service.task("plain")
    def use_in_thread(
        payload: int, *, there: Annotated[str, Depends(model)], n: Annotated[int, Depends(number)], more: int = 1
    ) -> str:
        return f"{payload} {there} {n} {more}"

    worker = await service.worker()
    assert (await service.run("plain", 3))["result"] == "3 model with connection 7 1"
    last = await service.submit("async")
    await begun.wait()
    worker.stop.request("the test wishes so")
    await worker.ended()
    assert (await service.row(last))["result"] == "connection"
    assert happened == [
        "pool opens", "model loads in False", "handler ends", "goodbye", "model ends", "pool closes"
    ]  # fmt: skip


async def test_nothing_is_consumed_before_everything_has_started(service: Service) -> None:
    go = asyncio.Event()

    @service.registry.hooks.on_startup
    async def slow() -> None:
        await go.wait()

    worker = await service.worker(wait=False)
    task_id = await service.submit("echo")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(service.final(task_id), 1)
    assert not worker.inside.is_consuming
    go.set()
    await service.final(task_id)


async def test_what_fails_at_the_start_ends_the_process_with_its_reason_and_what_had_started(service: Service) -> None:
    ended = []

    @service.registry.hooks.on_startup
    async def pool() -> AsyncIterator[None]:
        yield
        ended.append("pool")

    @service.registry.hooks.on_startup
    async def model() -> None:
        raise FileNotFoundError("no such model")

    with captured() as lines:
        worker = await service.worker(wait=False)
        with pytest.raises(ConfigurationError, match="model failed at the start: FileNotFoundError: no such model"):
            await worker.ended()
    assert ended == ["pool"]
    assert [line["log_level"] for line in lines if line["event"] == "lifespan.startup_failed"] == ["error"]


async def test_a_start_that_takes_too_long_ends_the_process(service: Service) -> None:
    @service.registry.hooks.on_startup
    async def stuck() -> None:
        await asyncio.sleep(600)

    worker = await service.worker(wait=False, startup_seconds=0.1)
    with pytest.raises(ConfigurationError, match=r"have not ended within 0.1 s \(BOBRAI_WORKER_STARTUP_SECONDS\)"):
        await worker.ended()


async def test_a_stop_does_not_wait_for_the_start(service: Service) -> None:
    begun, ended = asyncio.Event(), []

    @service.registry.hooks.on_startup
    async def stuck() -> AsyncIterator[None]:
        try:
            begun.set()
            await asyncio.sleep(600)
            yield
        finally:
            ended.append("stuck")

    worker = await service.worker(wait=False)
    await begun.wait()
    worker.stop.request("the test wishes so")
    await worker.ended()
    assert ended == ["stuck"]


async def test_what_fails_or_hangs_at_the_end_keeps_nobody(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bobrai.worker.main.STOP_SECONDS", 0.2)
    ended = []

    @service.registry.hooks.on_startup
    async def hangs() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(600)

    @service.registry.hooks.on_startup
    async def good() -> AsyncIterator[None]:
        yield
        ended.append("good")

    @service.registry.hooks.on_startup
    async def fails() -> AsyncIterator[None]:
        yield
        raise ValueError("no")

    with captured() as lines:
        worker = await service.worker()
        worker.stop.request("the test wishes so")
        await worker.ended()
    assert ended == ["good"]
    events = [line["event"] for line in lines]
    assert "lifespan.shutdown_failed" in events
    assert "lifespan.unfinished" in events


tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


@pytest.fixture
def around(service: Service) -> list[str]:
    """Two middlewares that note what they see, the first of which sets a tenant."""
    seen: list[str] = []

    @service.registry.middlewares.middleware
    async def outer(ctx: Context, payload: Any, call_next: CallNext) -> Any:
        tenant.set("ada")
        seen.append(f"outer {ctx.type} {payload}")
        try:
            return await call_next(payload)
        except BaseException as error:
            seen.append(f"outer saw {type(error).__name__}")
            raise

    @service.registry.middlewares.middleware
    async def inner(ctx: Context, payload: Any, call_next: CallNext) -> Any:
        seen.append(f"inner {payload}")
        return f"[{await call_next(payload + 1)}]"

    return seen


async def test_middleware_runs_around_every_attempt_wherever_its_handler_runs(
    service: Service, around: list[str]
) -> None:
    @service.task("async")
    async def in_loop(payload: int) -> str:
        return f"{payload} for {tenant.get()}"

    @service.task("plain")
    def in_thread(payload: int) -> str:
        return f"{payload} for {tenant.get()}"

    await service.worker()
    assert (await service.run("async", 1))["result"] == "[2 for ada]"
    assert (await service.run("plain", 1))["result"] == "[2 for ada]"
    assert around == ["outer async 1", "inner 1", "outer plain 1", "inner 1"]


@pytest.mark.parametrize("raised", [ValueError("no"), PermanentFailure("never"), SystemExit(3)])
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_middleware_sees_what_a_handler_raises(
    service: Service, around: list[str], kind: str, raised: BaseException
) -> None:
    async def in_loop(payload: int) -> None:
        raise raised

    def in_thread(payload: int) -> None:
        raise raised

    service.task("failing")(in_loop if kind == "async" else in_thread)
    await service.worker()
    row = await service.run("failing", 1)
    assert row["status"] == "failed"
    assert row["errors"][-1]["type"].endswith(type(raised).__name__)
    assert f"outer saw {type(raised).__name__}" in around


async def test_what_middleware_raises_is_the_attempts_own_error(service: Service) -> None:
    @service.registry.middlewares.middleware
    async def refuse(ctx: Context, payload: Any, call_next: CallNext) -> Any:
        raise PermanentFailure("no such tenant")

    await service.worker()
    row = await service.run("echo", 1)
    assert (row["status"], row["errors"][-1]["reason"]) == ("failed", "permanent")
    assert "refuse" in row["errors"][-1]["traceback"]


async def test_a_timeout_ends_an_attempt_through_its_middleware(service: Service, around: list[str]) -> None:
    @service.task("sleeps")
    async def sleeps(payload: int) -> None:
        await asyncio.sleep(600)

    await service.worker()
    row = await service.run("sleeps", 1, timeout_seconds=0.1)
    assert {error["reason"] for error in row["errors"]} == {"timeout"}
    await eventually(lambda: "outer saw CancelledError" in around)


async def test_the_example_sends_failed_attempts_to_sentry(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    original = sentry_sdk.init

    def init(_dsn: object, **more: Any) -> Any:
        return original("http://key@127.0.0.1:9/1", transport=Transport(sent), **more)

    monkeypatch.setattr(sentry_sdk, "init", init)
    registry = service.registry
    declaring = {
        "task": registry.task, "on_startup": registry.hooks.on_startup, "middleware": registry.middlewares.middleware
    }  # fmt: skip
    for name, declare in declaring.items():
        monkeypatch.setitem(bobrai.__dict__, name, declare)
    spec = importlib.util.spec_from_file_location("error_tracking", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))

    @service.task("fails")
    def fails() -> None:
        raise ValueError("no")

    await service.worker()
    assert (await service.run("fetch", "http://127.0.0.1:9/"))["errors"][-1]["type"] == "httpx.ConnectError"
    failed = await service.run("fails")
    events = [event for event in sent if event and event["contexts"]["task"]["id"] == failed["id"]]
    assert [event["contexts"]["task"]["attempt"] for event in events] == [1, 2, 3]
    assert {event["tags"]["task_type"] for event in events} == {"fails"}
    assert events[0]["exception"]["values"][-1]["stacktrace"]["frames"][-1]["function"] == "fails"


class Transport(sentry_sdk.Transport):
    """Keeps what it is to send."""

    def __init__(self, sent: list[Any]) -> None:
        super().__init__()
        self._sent = sent

    def capture_envelope(self, envelope: Any) -> None:
        self._sent.append(envelope.get_event())


async def test_a_type_in_processes_that_no_other_process_can_find_is_refused(service: Service) -> None:
    @service.task("hidden", runs_in="process")
    def hidden() -> None: ...

    with pytest.raises(ConfigurationError, match=r"hidden runs in a process: declare it with bobrai.task, in a module"):
        await worker_main.serve(service.settings(), MemoryBroker(), service.registry, Stop())
