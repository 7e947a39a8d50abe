"""A primary and its standby change roles: sessions on the old primary are given up, whatever kept them alive."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.invariants import CUTS_SURVIVED, WITHOUT_TRANSACTION, Expected, check
from tests.faults.service import Service
from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.pgbouncer import PgBouncerServer
from tests.support.postgres_pair import PostgresPair
from tests.support.processes import Processes
from tests.support.rabbitmq import VirtualHost
from tests.support.run_folder import RunFolder
from tests.support.tcp_proxy import TcpProxy

MakeProxy = Callable[[str, int], TcpProxy]


@pytest.fixture
def pair(run_folder: RunFolder) -> Iterator[PostgresPair]:
    pair = PostgresPair(run_folder, f"pair-{run_folder.free_port()}")
    yield pair
    pair.dispose()


@pytest.fixture
def address(pair: PostgresPair, tcp_proxy: MakeProxy) -> TcpProxy:
    """What always leads to the primary: a Service, or a name. Connections that are open stay where they are."""
    return tcp_proxy(pair.primary.host, pair.primary.port)


@pytest.fixture
def pooler(run_folder: RunFolder, address: TcpProxy) -> Iterator[PgBouncerServer]:
    """A PgBouncer that knows the primary by its address."""
    name, upstream = f"pair-pooler-{run_folder.free_port()}", f"postgresql://postgres@{address.host}:{address.port}"
    server = PgBouncerServer.create(run_folder, name, upstream)
    yield server
    server.dispose()


@pytest.mark.parametrize("way", ["several hosts", "one address", "one address, pooled"])
async def test_a_change_of_roles_is_followed_without_a_restart(
    pair: PostgresPair,
    address: TcpProxy,
    rabbitmq: VirtualHost,
    processes: Processes,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    way: str,
) -> None:
    direct = pair.url() if way == "several hosts" else address.url(pair.primary.url())
    pooled = request.getfixturevalue("pooler").url("postgres") if way.endswith("pooled") else direct
    own = Database("postgres", f"{pair.url()}?target_session_attrs=read-write", lambda _: pooled)
    service = Service(processes, own, rabbitmq, tmp_path)
    service.settings["BOBRAI_DATABASE_DIRECT_URL"] = direct
    assert processes.start("migrate").wait() == 0
    await service.prepare()
    service.start(worker=2)
    try:
        with service.load.flowing(seconds=0.01, max_attempts=CUTS_SURVIVED):
            for _ in range(2):
                await service.reached("status = 'done'", await service.count() + 30)
                pair.switch()
                if way != "several hosts":
                    await eventually(lambda: is_read_only(service), 30, message="everybody is at the old primary again")
                address.target = (pair.primary.host, pair.primary.port)
            await service.reached("status = 'done'", await service.count() + 30)
        await check(service, Expected(first_attempt_only=WITHOUT_TRANSACTION))
    finally:
        service.load.close()


def is_read_only(service: Service) -> bool:
    """Whether the API finds itself on a server that only reads."""
    status, text = service.load.request("/api/v1/tasks", {"type": "plain", "payload": {}})
    return status == 503 and b"25006" in text
