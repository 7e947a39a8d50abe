"""PostgreSQL away, slow, or answering into a cut connection: nothing is lost and nothing runs twice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import pytest
from prometheus_client import REGISTRY

from bobrai import Context
from bobrai.domain.errors import DatabaseUnavailable
from bobrai.store import attempts
from bobrai.telemetry.logs import captured as capture_logs
from tests.integration.worker.service import RunningWorker, Service
from tests.support.eventually import eventually
from tests.support.tcp_proxy import TcpProxy


@pytest.fixture
async def proxy(service: Service, tcp_proxy: Callable[[str, int], TcpProxy]) -> AsyncIterator[TcpProxy]:
    """Between the worker and PostgreSQL."""
    address = urlsplit(service.url)
    return tcp_proxy(address.hostname or "", address.port or 5432)


def is_ready(worker: RunningWorker) -> bool:
    return worker.inside.heartbeat.reaches_database and worker.inside.is_consuming


async def test_outcome_waits_for_a_database_that_is_away(service: Service, proxy: TcpProxy) -> None:
    gate = asyncio.Event()
    starts: list[int] = []

    @service.task("waits")
    async def waits(ctx: Context) -> str:
        starts.append(ctx.attempt)
        await gate.wait()
        return "kept"

    worker = await service.worker(url=proxy.url(service.url), heartbeat_seconds=0.3, lease_seconds=60)
    task_id = await service.submit("waits")
    await service.reached(task_id, "processing")
    with capture_logs() as logs:
        proxy.refuse()
        gate.set()
        await eventually(lambda: not is_ready(worker), message="not ready")
        late = await service.submit("echo", "late")
        await eventually(lambda: worker.inside.claims._outage.is_on, message="claims fail")
        assert not worker.serving.done()
        proxy.pass_through()
        assert (await service.final(task_id))["result"] == "kept"
        assert (await service.final(late))["status"] == "done"
        await eventually(lambda: is_ready(worker), message="ready again")
    away = [line["part"] for line in logs if line["event"] == "database.away"]
    assert len(away) == len(set(away)), "each part says it once"
    assert starts == [1]
    await service.nothing_is_left()


async def test_worker_waits_for_a_database_that_is_away_at_the_start(service: Service, proxy: TcpProxy) -> None:
    proxy.refuse()
    worker = await service.worker(url=proxy.url(service.url), wait=False)
    await eventually(lambda: worker.inside.heartbeat._outage.is_on)
    task_id = await service.submit("echo")
    proxy.pass_through()
    assert (await service.final(task_id, timeout=20))["status"] == "done"


async def test_worker_can_be_stopped_while_its_database_is_away(service: Service, proxy: TcpProxy) -> None:
    proxy.refuse()
    worker = await service.worker(url=proxy.url(service.url), wait=False)
    await eventually(lambda: worker.inside.heartbeat._outage.is_on)
    worker.stop.request("test")
    await worker.ended(timeout=10)


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
@pytest.mark.parametrize("what", ["claim", "complete", "end"])
async def test_unanswered_write_is_neither_lost_nor_repeated(
    service: Service, monkeypatch: pytest.MonkeyPatch, what: str, written: bool
) -> None:
    """The connection is lost at a write, after or before it took effect, and its fate is unknown."""
    starts: list[tuple[int, int]] = []
    original = getattr(attempts, what)
    lost = 0

    async def lossy(*arguments: object, **options: object) -> object:
        nonlocal lost
        lost += 1
        if lost > 2:
            return await original(*arguments, **options)
        if written:
            await original(*arguments, **options)
        raise DatabaseUnavailable("the connection was lost")

    @service.task("fails-first")
    async def fails_first(ctx: Context) -> int:
        starts.append((ctx.task_id, ctx.attempt))
        if what == "end" and ctx.attempt == 1:
            raise ValueError("first attempt")
        return ctx.attempt

    worker = await service.worker()
    lost_before = REGISTRY.get_sample_value("bobrai_claims_lost_total")
    monkeypatch.setattr(attempts, what, lossy)
    ids = await service.submit_many(20, "fails-first")
    await service.all_final(ids)
    await service.nothing_is_left()
    assert lost > 2
    expected = 2 if what == "end" else 1
    assert sorted(starts) == [(task_id, attempt) for task_id in ids for attempt in range(1, expected + 1)]
    assert await service.count("status = 'done' AND attempt = $1", expected) == 20
    assert worker.inside.claims.unsure == set()
    await eventually(lambda: worker.inside.executor.unsettled == 0)
    assert REGISTRY.get_sample_value("bobrai_claims_lost_total") == lost_before


async def test_unanswered_claim_is_not_given_back_to_the_outbox(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hint whose claim may be committed must stay here until that is known, however long it takes."""
    original, calls = attempts.claim, 0

    async def lossy(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            await original(*arguments, **options)
        if calls < 5:
            raise DatabaseUnavailable("the connection was lost")
        return await original(*arguments, **options)

    monkeypatch.setattr(attempts, "claim", lossy)
    monkeypatch.setattr("bobrai.worker.intake.GIVE_BACK_SECONDS", 0.1)
    await service.worker()
    row = await service.run("echo")
    assert (row["status"], row["attempt"]) == ("done", 1)
    await service.nothing_is_left()


async def test_results_are_kept_for_as_long_as_a_worker_drains(
    service: Service, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain that meets an outage has its whole time for what is finished, not a few seconds."""
    monkeypatch.setattr("bobrai.worker.worker.WRITE_SECONDS", 0.05)
    gate = asyncio.Event()
    starts: list[int] = []

    @service.task("waits")
    async def waits(ctx: Context) -> str:
        starts.append(ctx.task_id)
        await gate.wait()
        return "kept"

    worker = await service.worker(url=proxy.url(service.url), drain_seconds=60, lease_seconds=60)
    ids = await service.submit_many(10, "waits")
    await eventually(lambda: len(starts) == 10)
    proxy.refuse()
    worker.stop.request("test")
    gate.set()
    await eventually(lambda: worker.inside.executor.running == 0)
    await eventually(lambda: worker.inside.executor.completions._outage._failures > 4, message="tries again and again")
    assert not worker.serving.done()
    proxy.pass_through()
    await worker.ended()
    assert await service.count("status = 'done' AND attempt = 1") == 10
    assert sorted(starts) == ids
