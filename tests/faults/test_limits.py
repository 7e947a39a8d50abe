"""Limits through everything that dies, freezes or does not answer: never more runs than may, and no place is lost."""

import json
from collections.abc import Callable

import pytest

from tests.faults.invariants import ANY_TYPE, Expected, check, most_at_once
from tests.faults.service import SHORT_LEASE, Service, behind
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.tcp_proxy import TcpProxy

MakeProxy = Callable[[str, int], TcpProxy]
ACCOUNTS = ("a", "b")
LIMIT = 3


async def limited(service: Service) -> None:
    """No more than so many of each account at once."""
    limits = json.dumps({"per_key": {"key": "/account", "concurrency": LIMIT}})
    await service.database.execute("UPDATE queues SET limits = $1 WHERE name = 'default'", limits)


def submit(service: Service, count: int = 60, seconds: float = 0.02) -> None:
    """Tasks of both accounts."""
    for account in ACCOUNTS:
        service.load.submit(count, batch=20, account=account, seconds=seconds)


async def done(service: Service, more: int) -> None:
    """Wait until so many more are done."""
    await service.reached("status = 'done'", await service.count("status = 'done'") + more)


async def the_limit_held(service: Service) -> None:
    """The rows say that no account ever had more, and each had as many as it may."""
    for account in ACCOUNTS:
        assert await most_at_once(service, f"t.payload ->> 'account' = '{account}'") == LIMIT


async def test_killed_and_frozen_workers_pass_no_limit_and_keep_no_place(service: Service) -> None:
    service.settings |= SHORT_LEASE
    await limited(service)
    service.start(worker=3)
    submit(service)
    await done(service, 15)
    service.workers[0].kill()
    service.worker(ready=False)
    await done(service, 15)
    frozen = service.workers[1]
    frozen.freeze()
    await done(service, 15)
    frozen.thaw()
    await check(service)
    await the_limit_held(service)


async def test_killed_dispatchers_pass_no_limit_and_keep_no_place(service: Service) -> None:
    await limited(service)
    service.start(dispatcher=2, worker=3)
    submit(service)
    for victim in list(service.dispatchers):
        await done(service, 20)
        victim.kill()
        service.dispatcher(ready=False)
    await check(service, Expected(first_attempt_only=ANY_TYPE))
    await the_limit_held(service)


async def test_a_dispatcher_that_freezes_while_it_decides_holds_up_nobody_for_long(service: Service) -> None:
    await limited(service)
    service.start(dispatcher=2, worker=3)
    submit(service)
    for victim in list(service.dispatchers):
        await done(service, 20)
        victim.freeze()
        await done(service, 20)
        victim.thaw()
    await check(service, Expected(first_attempt_only=ANY_TYPE))
    await the_limit_held(service)


async def test_confirms_that_never_come_pass_no_limit_and_keep_no_place(service: Service, tcp_proxy: MakeProxy) -> None:
    proxy = behind(tcp_proxy, service, "BOBRAI_RABBITMQ_URL")
    await limited(service)
    service.start(worker=3)
    submit(service)
    for _ in range(4):
        await done(service, 15)
        await eventually(lambda: proxy.cut() > 0, message="something is connected again, and cut")
    await check(service, Expected(first_attempt_only=ANY_TYPE))
    await the_limit_held(service)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_database_that_crashes_passes_no_limit_and_keeps_no_place(
    on_private_database: Service, private_postgres: PostgresServer, mode: str
) -> None:
    """The decisions of its last moments are gone with it, and their messages are not."""
    service = on_private_database
    await limited(service)
    service.start(worker=3)
    submit(service)
    await done(service, 20)
    private_postgres.restart(mode)  # type: ignore[arg-type]
    await check(service)
    await the_limit_held(service)
