"""The dispatcher as a process: ready means relaying, outages are waited out, and a stop ends it politely."""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest

from bobrai.dispatcher.main import serve
from bobrai.domain.errors import ConfigurationError
from bobrai.runtime.lifecycle import Stop
from bobrai.settings import Settings
from bobrai.store.pool import Database
from bobrai.telemetry.logs import captured as capture_logs
from tests.integration.dispatcher.conftest import Broker
from tests.integration.store.builders import outbox_rows, submitted
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually
from tests.support.tcp_proxy import TcpProxy

MakeSettings = Callable[..., Settings]
Start = Callable[..., "asyncio.Task[None]"]


async def ready(settings: Settings) -> dict[str, object]:
    """What /readyz says."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{settings.dispatcher.health_bind}/readyz")
        assert answer.status_code == (200 if answer.json()["ready"] else 503)
        return dict(answer.json())


async def is_ready(settings: Settings) -> bool:
    """Whether it is ready."""
    return bool((await ready(settings))["ready"])


async def is_not_ready(settings: Settings) -> bool:
    """Whether it answers that it is not."""
    return not await is_ready(settings)


async def test_it_relays_and_says_so(
    settings_with: MakeSettings, store: Database, broker: Broker, running: Start
) -> None:
    settings, stop = settings_with(), Stop()
    serving = running(serve(settings, broker, stop))
    await eventually(lambda: is_ready(settings))
    await submitted(store, 3)
    await eventually(lambda: len(broker.hints()) == 3)
    async with httpx.AsyncClient() as client:
        base = f"http://{settings.dispatcher.health_bind}"
        assert (await client.get(f"{base}/livez")).status_code == 200
        assert 'bobrai_hints_relayed_total{queue="default"}' in (await client.get(f"{base}/metrics")).text
    stop.request("test")
    await asyncio.wait_for(serving, 10)


async def test_without_a_broker_it_waits_and_is_not_ready(
    settings_with: MakeSettings, store: Database, running: Start
) -> None:
    class Late(Broker):
        async def start(self) -> None:
            """Connect in the background, later."""

    late, settings, stop = Late(), settings_with(), Stop()
    serving = running(serve(settings, late, stop))
    await submitted(store, 3)
    await eventually(lambda: is_not_ready(settings))
    assert (await ready(settings))["checks"] == {"rabbitmq": False, "relaying": False}
    assert len(await outbox_rows(store)) == 3
    late.come_back()
    await eventually(lambda: len(late.hints()) == 3)
    await eventually(lambda: is_ready(settings))
    stop.request("test")
    await asyncio.wait_for(serving, 10)


async def test_it_outlives_an_outage_of_the_database(
    settings_with: MakeSettings,
    database: OwnDatabase,
    store: Database,
    broker: Broker,
    running: Start,
    tcp_proxy: Callable[[str, int], TcpProxy],
) -> None:
    parts = urlsplit(database.url)
    proxy = tcp_proxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    url = proxy.url(database.url)
    settings = settings_with(url=url)
    settings = settings.model_copy(
        update={"database": settings.database.model_copy(update={"direct_url": settings.database.url})}
    )
    stop = Stop()
    serving = running(serve(settings, broker, stop))
    await eventually(lambda: is_ready(settings))
    proxy.refuse()
    await submitted(store, 3)
    await eventually(lambda: is_not_ready(settings), timeout=20.0)
    proxy.pass_through()
    await eventually(lambda: len(broker.hints()) == 3, timeout=30.0)
    await eventually(lambda: is_ready(settings), timeout=30.0)
    assert not serving.done()
    stop.request("test")
    await asyncio.wait_for(serving, 15)


async def test_it_starts_before_its_database_has_a_schema(
    settings_with: MakeSettings, empty_database: OwnDatabase, broker: Broker, running: Start
) -> None:
    from bobrai.store.migrate import migrate

    settings, stop = settings_with(url=empty_database.url), Stop()
    serving = running(serve(settings, broker, stop))
    await eventually(lambda: is_not_ready(settings))
    await migrate(empty_database.url)
    await eventually(lambda: is_ready(settings), timeout=20.0)
    stop.request("test")
    await asyncio.wait_for(serving, 10)


async def test_a_round_under_way_is_finished_before_it_ends(
    settings_with: MakeSettings, store: Database, running: Start
) -> None:
    class Slow(Broker):
        begun, gate = asyncio.Event(), asyncio.Event()

        async def publish(self, queue: str, messages: object) -> list[bool]:
            self.begun.set()
            await self.gate.wait()
            return await super().publish(queue, messages)  # type: ignore[arg-type]

    slow, stop = Slow(), Stop()
    await submitted(store, 3)
    serving = running(serve(settings_with(), slow, stop))
    await asyncio.wait_for(slow.begun.wait(), 10)
    stop.request("test")
    slow.gate.set()
    await asyncio.wait_for(serving, 10)
    assert (len(slow.hints()), await outbox_rows(store)) == (3, [])


async def test_a_round_that_hangs_is_cut_off_and_loses_nothing(
    settings_with: MakeSettings, store: Database, running: Start
) -> None:
    class Hanging(Broker):
        begun = asyncio.Event()

        async def publish(self, queue: str, messages: object) -> list[bool]:
            self.begun.set()
            await asyncio.Event().wait()
            return []

    hanging, stop = Hanging(), Stop()
    await submitted(store, 3)
    serving = running(serve(settings_with(drain_seconds=0.1), hanging, stop))
    await asyncio.wait_for(hanging.begun.wait(), 10)
    stop.request("test")
    await asyncio.wait_for(serving, 10)
    assert len(await outbox_rows(store)) == 3


async def test_a_taken_port_is_said_at_once(settings_with: MakeSettings, broker: Broker) -> None:
    settings, stop = settings_with(), Stop()
    first = asyncio.ensure_future(serve(settings, broker, stop))
    await eventually(lambda: is_ready(settings))
    with pytest.raises(ConfigurationError, match="BOBRAI_DISPATCHER_HEALTH_BIND"):
        await serve(settings, broker, Stop())
    stop.request("test")
    await asyncio.wait_for(first, 10)


async def test_a_direct_connection_that_is_refused_costs_the_listening_only(
    settings_with: MakeSettings, store: Database, database: OwnDatabase, empty_database: OwnDatabase, broker: Broker,
    running: Start,
) -> None:  # fmt: skip
    await database.execute(f'ALTER DATABASE "{empty_database.name}" WITH ALLOW_CONNECTIONS false')
    settings, stop = settings_with(direct_url=empty_database.url), Stop()
    with capture_logs() as logs:
        serving = running(serve(settings, broker, stop))
        await eventually(lambda: any(line["event"] == "wakeups.lost" for line in logs))
        await submitted(store, 3)
        await eventually(lambda: len(broker.hints()) == 3)
        assert not serving.done()
        await database.execute(f'ALTER DATABASE "{empty_database.name}" WITH ALLOW_CONNECTIONS true')
        await eventually(lambda: any(line["event"] == "wakeups.listening" for line in logs))
    assert ["55000" in line["reason"] for line in logs if line["event"] == "wakeups.lost"] == [True]
    stop.request("test")
    await asyncio.wait_for(serving, 10)
