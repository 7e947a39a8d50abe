"""PostgreSQL is restarted, crashes, or drops its connections; PgBouncer is restarted."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.invariants import CUTS_SURVIVED, WITHOUT_TRANSACTION, Expected, check
from tests.faults.service import Service, behind
from tests.support.eventually import eventually
from tests.support.pgbouncer import PgBouncerServer
from tests.support.postgres import PostgresServer, StopMode
from tests.support.tcp_proxy import TcpProxy

MakeProxy = Callable[[str, int], TcpProxy]
CLIENTS = 16
RESTARTS = 3


async def notices(service: Service) -> None:
    """Wait until every process says that its database is away."""
    working = [*service.dispatchers, *service.workers]
    await eventually(lambda: not any(process.is_ready() for process in working), 20, message="all say not ready")
    for api in service.apis:
        await eventually(lambda api=api: api.get("/health", timeout=8)[0] == 503, 20, message="unhealthy")  # type: ignore[misc]


def held(service: Service) -> float:
    """How many requests are under way."""
    return service.metric("bobrai_http_requests_in_progress", service.apis)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_restarted_postgres_costs_no_task_and_no_attempt(
    on_private_database: Service, private_postgres: PostgresServer, mode: StopMode
) -> None:
    service = on_private_database
    service.start(worker=2)
    with service.load.flowing(seconds=0.01, max_attempts=CUTS_SURVIVED):
        await service.reached("status = 'done'", 30)
        private_postgres.restart(mode)
        await service.reached("status = 'done'", await service.count() + 30)
    await check(service, Expected(first_attempt_only=WITHOUT_TRANSACTION))


async def test_postgres_away_is_waited_for(on_private_database: Service, private_postgres: PostgresServer) -> None:
    service = on_private_database
    service.start(worker=2)
    with service.load.flowing(seconds=0.01, max_attempts=CUTS_SURVIVED):
        await service.reached("status = 'done'", 30)
        private_postgres.stop("fast")
        await notices(service)
        assert all(api.is_ready() for api in service.apis), "the API answers, so that it is sent requests"
        private_postgres.start()
        for process in service.all():
            process.wait_ready()
    await check(service, Expected(first_attempt_only=WITHOUT_TRANSACTION))


async def test_submits_are_held_while_postgres_restarts_but_for_the_statement_that_it_cut_off(
    on_private_database: Service, private_postgres: PostgresServer
) -> None:
    service = on_private_database
    service.start(dispatcher=0, worker=0)
    stop = threading.Event()
    answers: list[tuple[int | None, bytes]] = []

    def submit() -> None:
        while not stop.is_set():
            answers.append(service.load.request("/api/v1/tasks", {"type": "plain", "payload": {}}))

    with ThreadPoolExecutor(CLIENTS) as clients:
        flows = [clients.submit(submit) for _ in range(CLIENTS)]
        try:
            for _ in range(RESTARTS):
                await service.reached("true", await service.count() + 200)
                private_postgres.stop("fast")
                await eventually(
                    lambda: service.metric("bobrai_http_requests_in_progress") >= CLIENTS, message="all wait"
                )
                private_postgres.start()
            await service.reached("true", await service.count() + 200)
        finally:
            stop.set()
        for flow in flows:
            flow.result()
    refused = sum(status != 201 for status, _ in answers)
    assert refused <= RESTARTS * CLIENTS, "a client is refused once at most, for what was under way"
    assert len(answers) - refused <= await service.count() <= len(answers)


async def test_outage_that_lasts_is_told_to_who_waited_and_at_once_to_who_comes_later(
    on_private_database: Service, private_postgres: PostgresServer
) -> None:
    service = on_private_database
    service.start(dispatcher=0, worker=0)
    private_postgres.stop("fast")
    task = {"type": "plain", "payload": {}}
    for shortest, longest in ((4.0, 10.0), (0.0, 4.0)):
        began = time.monotonic()
        status, text = service.load.request("/api/v1/tasks", task)
        assert status == 503, text
        assert shortest < time.monotonic() - began < longest
    assert service.apis[0].is_ready()
    assert service.apis[0].get("/docs")[0] == 200
    assert service.metric("bobrai_connected", service.apis) == 0
    private_postgres.start()
    await eventually(lambda: service.load.request("/api/v1/tasks", task)[0] == 201, 20, message="it takes tasks again")


async def test_frozen_postgres_makes_nothing_hang(
    on_private_database: Service, private_postgres: PostgresServer
) -> None:
    service = on_private_database
    service.start(worker=2)
    with service.load.flowing(seconds=0.01, max_attempts=CUTS_SURVIVED):
        await service.reached("status = 'done'", 30)
        private_postgres.freeze()
        await notices(service)
        private_postgres.thaw()
        for process in service.all():
            process.wait_ready()
    await check(service, Expected(first_attempt_only=WITHOUT_TRANSACTION))


async def test_restarted_pgbouncer_costs_no_task_and_no_attempt(
    on_private_database: Service, private_pgbouncer: PgBouncerServer
) -> None:
    service = on_private_database
    service.start(worker=2)
    with service.load.flowing(seconds=0.01, max_attempts=CUTS_SURVIVED):
        for _ in range(3):
            await service.reached("status = 'done'", await service.count() + 30)
            private_pgbouncer.restart()
        await service.reached("status = 'done'", await service.count() + 30)
    await check(service, Expected(first_attempt_only=WITHOUT_TRANSACTION))


async def test_backends_ended_by_an_administrator_cost_no_attempt(service: Service) -> None:
    service.start(worker=2)
    with service.load.flowing(seconds=0.01, max_attempts=CUTS_SURVIVED):
        for _ in range(5):
            await service.reached("status = 'done'", await service.count("status = 'done'") + 30)
            ended = await service.database.fetchval(
                """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()"""
            )
            assert ended > 0
    await check(service, Expected(first_attempt_only=WITHOUT_TRANSACTION))


async def test_connections_cut_on_the_way_cost_no_attempt(service: Service, tcp_proxy: MakeProxy) -> None:
    pooled = behind(tcp_proxy, service, "BOBRAI_DATABASE_URL")
    direct = behind(tcp_proxy, service, "BOBRAI_DATABASE_DIRECT_URL")
    service.start(worker=2)
    with service.load.flowing(seconds=0.01, max_attempts=CUTS_SURVIVED):
        for _ in range(5):
            await service.reached("status = 'done'", await service.count("status = 'done'") + 30)
            assert pooled.cut() + direct.cut() > 0
    await check(service, Expected(first_attempt_only=WITHOUT_TRANSACTION))


async def test_answers_lost_on_the_way_cost_no_task_and_no_attempt(service: Service, tcp_proxy: MakeProxy) -> None:
    pooled = behind(tcp_proxy, service, "BOBRAI_DATABASE_URL")
    service.start(worker=2)
    with service.load.flowing(threads=4, max_attempts=CUTS_SURVIVED):
        for _ in range(8):
            await service.reached("status = 'done'", await service.count("status = 'done'") + 20)
            # whatever is under way when the line is cut was carried out, and nobody heard of it
            pooled.latency(0.1)
            await service.reached("status = 'processing'", 1)
            assert pooled.cut() > 0
            pooled.latency(0)
    await check(service, Expected(first_attempt_only=WITHOUT_TRANSACTION))
    # what was written and not heard of was asked for, and not taken for a lost claim
    assert service.metric("bobrai_claims_lost_total", service.workers) == 0


async def test_silent_way_to_postgres_is_noticed_and_waited_for(service: Service, tcp_proxy: MakeProxy) -> None:
    pooled = behind(tcp_proxy, service, "BOBRAI_DATABASE_URL")
    service.start(worker=2)
    with service.load.flowing(seconds=0.01, max_attempts=CUTS_SURVIVED):
        await service.reached("status = 'done'", 30)
        pooled.blackhole()
        await notices(service)
        pooled.cut()
        pooled.pass_through()
        for process in service.all():
            process.wait_ready()
    await check(service, Expected(first_attempt_only=WITHOUT_TRANSACTION))


async def test_running_tasks_outlive_an_outage_of_postgres(
    on_private_database: Service, private_postgres: PostgresServer
) -> None:
    service = on_private_database
    service.start()
    service.load.submit(5, type="plain", gate="go")
    await service.reached("status = 'processing'", 5)
    private_postgres.stop("fast")
    service.open_gate("go")
    await eventually(lambda: not service.workers[0].is_ready(), 20, message="the worker says not ready")
    private_postgres.start()
    await check(service, Expected(first_attempt_only=WITHOUT_TRANSACTION))


async def test_lost_notify_costs_a_poll_and_no_task(service: Service, tcp_proxy: MakeProxy) -> None:
    direct = behind(tcp_proxy, service, "BOBRAI_DATABASE_DIRECT_URL")
    direct.refuse()
    service.start()
    service.load.submit(20, type="effect")
    await check(service, Expected(first_attempt_only=WITHOUT_TRANSACTION))
