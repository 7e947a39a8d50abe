"""Processes that start before what they need: they wait, say so once, and begin when it comes."""

from collections import Counter
from collections.abc import Callable

import pytest

from tests.faults.invariants import ANY_TYPE, Expected, check
from tests.faults.service import Service, behind
from tests.support.eventually import eventually, stays
from tests.support.processes import Process
from tests.support.tcp_proxy import TcpProxy

MakeProxy = Callable[[str, int], TcpProxy]

AWAY = {"refuse": TcpProxy.refuse, "blackhole": TcpProxy.blackhole}


def says_not_ready(process: Process) -> bool:
    """Whether its port answers, with 503; asking a silent server takes the API its connect timeout."""
    return process.get("/readyz", timeout=8)[0] == 503


async def waits(processes: list[Process]) -> None:
    """Each answers that it is live and not ready, and goes on to."""
    for process in processes:
        await eventually(lambda process=process: says_not_ready(process), 20, message=f"{process.name} answers")  # type: ignore[misc]
    await stays(
        lambda: all(process.is_running() and says_not_ready(process) for process in processes), 3,
        message="all wait, and none gives up",
    )  # fmt: skip
    assert all(process.get("/livez")[0] == 200 for process in processes)


def said_once(processes: list[Process]) -> None:
    """No warning was repeated while nothing changed."""
    for process in processes:
        lines = Counter(
            (event["event"], event.get("loop"), event.get("queue"))
            for event in process.log_events()
            if event["level"] == "warning"
        )
        assert all(count <= 2 for count in lines.values()), f"{process.name} repeats itself: {lines}"


@pytest.mark.parametrize("how", AWAY)
async def test_rabbitmq_away_at_start_is_waited_for(service: Service, tcp_proxy: MakeProxy, how: str) -> None:
    proxy = behind(tcp_proxy, service, "BOBRAI_RABBITMQ_URL")
    AWAY[how](proxy)
    service.start(ready=False)
    service.apis[0].wait_ready()
    service.load.submit(20, batch=20, type="effect")
    needing = [*service.dispatchers, *service.workers]
    await waits(needing)
    said_once(needing)
    proxy.pass_through()
    for process in needing:
        process.wait_ready()
    await check(service, Expected(first_attempt_only=ANY_TYPE))


@pytest.mark.parametrize("how", AWAY)
async def test_postgres_away_at_start_is_waited_for(service: Service, tcp_proxy: MakeProxy, how: str) -> None:
    proxies = [
        behind(tcp_proxy, service, "BOBRAI_DATABASE_URL"),
        behind(tcp_proxy, service, "BOBRAI_DATABASE_DIRECT_URL"),
    ]
    for proxy in proxies:
        AWAY[how](proxy)
    service.start(ready=False)
    await waits(service.all())
    said_once(service.all())
    for proxy in proxies:
        proxy.pass_through()
    for process in service.all():
        process.wait_ready()
    service.load.submit(20, batch=20, type="effect")
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_migrate_waits_for_its_database(service: Service, tcp_proxy: MakeProxy) -> None:
    proxy = behind(tcp_proxy, service, "BOBRAI_DATABASE_DIRECT_URL")
    proxy.refuse()
    migrate = service.processes.start("migrate")
    await eventually(lambda: "database.awaited" in migrate.log_text(), 20, message="it says that it waits")
    assert migrate.is_running()
    proxy.pass_through()
    assert await migrate.exited() == 0
    assert migrate.log_text().count("database.awaited") == 1


async def test_sigterm_ends_a_process_that_still_waits(service: Service, tcp_proxy: MakeProxy) -> None:
    for variable in ("BOBRAI_DATABASE_URL", "BOBRAI_DATABASE_DIRECT_URL", "BOBRAI_RABBITMQ_URL"):
        behind(tcp_proxy, service, variable).refuse()
    service.start(ready=False)
    for process in service.all():
        await eventually(lambda process=process: says_not_ready(process), 20, message=f"{process.name} answers")  # type: ignore[misc]
        process.terminate()
    for process in service.all():
        assert await process.exited(20) == 0
