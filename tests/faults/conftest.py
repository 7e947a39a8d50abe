"""Fixtures of the fault cases: a whole service, on shared servers or on servers that the case may break."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.service import Service
from tests.support.databases import Database
from tests.support.pgbouncer import PgBouncerServer
from tests.support.postgres import PostgresServer
from tests.support.processes import Processes
from tests.support.rabbitmq import VirtualHost
from tests.support.rabbitmq_cluster import RabbitCluster

# a case starts processes, breaks them and waits for the repair, beside other cases on the same cores
CASE_SECONDS = 150
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every case of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.timeout(CASE_SECONDS))


@pytest.fixture
async def service(
    database: Database, rabbitmq: VirtualHost, processes: Processes, tmp_path: Path
) -> AsyncIterator[Service]:
    """A service on the shared servers, none of its processes started yet."""
    service = Service(processes, database, rabbitmq, tmp_path)
    await service.prepare()
    yield service
    service.load.close()


@pytest.fixture
async def clustered(
    database: Database, rabbitmq_cluster: RabbitCluster, processes: Processes, tmp_path: Path
) -> AsyncIterator[Service]:
    """A service on the cluster of three nodes, which the case may break."""
    service = Service(processes, database, rabbitmq_cluster, tmp_path)
    await service.prepare()
    yield service
    service.load.close()


@pytest.fixture
async def on_private_database(
    private_postgres: PostgresServer,
    private_pgbouncer: PgBouncerServer,
    rabbitmq: VirtualHost,
    processes: Processes,
    tmp_path: Path,
) -> AsyncIterator[Service]:
    """A service on a PostgreSQL and a PgBouncer that the case may break, brought up by `bobrai migrate`."""
    database = Database("postgres", private_postgres.url(), private_pgbouncer.url)
    service = Service(processes, database, rabbitmq, tmp_path)
    assert processes.start("migrate").wait() == 0
    await service.prepare()
    yield service
    service.load.close()
