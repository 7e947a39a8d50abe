"""Proves the servers that the other tests stand on: own databases, own virtual hosts, and ones that may be broken."""

import asyncio

import aio_pika
import aio_pika.abc
import asyncpg
import pytest

from tests.support.databases import Database
from tests.support.eventually import eventually, stays
from tests.support.pgbouncer import PgBouncerServer
from tests.support.postgres import PostgresServer
from tests.support.rabbitmq import VirtualHost
from tests.support.rabbitmq_cluster import RabbitCluster
from tests.support.rabbitmq_management import QueueCounts

# --- PostgreSQL and PgBouncer --------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_number", [1, 2])
async def test_every_test_has_a_database_of_its_own(database: Database, round_number: int) -> None:
    assert await database.fetchval("SELECT to_regclass('public.mark') IS NULL")
    await database.execute("CREATE TABLE mark (round int)")


async def test_database_has_the_products_schema(database: Database, empty_database: Database) -> None:
    assert await database.fetchval("SELECT to_regclass('public.tasks') IS NOT NULL")
    assert await empty_database.fetchval("SELECT to_regclass('public.tasks') IS NULL")


async def test_pooled_url_pools_transactions_and_tracks_prepared_statements(database: Database) -> None:
    clients = 30
    backends: set[int] = set()

    async def use_one_statement_often() -> None:
        async with database.connect(pooled=True) as connection:
            for number in range(10):
                query = "SELECT $1::int, pg_backend_pid(), txid_current()"
                row = await connection.fetchrow(query, number)
                assert row is not None
                assert row[0] == number
                backends.add(row[1])

    await asyncio.gather(*(use_one_statement_often() for _ in range(clients)))
    assert len(backends) <= 20, "more server connections than the pool has: not pooled by transaction"
    assert len(backends) < clients


async def test_private_postgres_can_be_killed_and_started(private_postgres: PostgresServer) -> None:
    connection = await asyncpg.connect(private_postgres.url())
    await connection.execute("CREATE TABLE kept (n int)")
    private_postgres.kill()
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.fetchval("SELECT 1")
    assert not private_postgres.answers()
    private_postgres.start()
    again = await asyncpg.connect(private_postgres.url())
    assert await again.fetchval("SELECT count(*) FROM kept") == 0
    await again.close()
    private_postgres.restart("immediate")
    assert private_postgres.answers()


async def test_private_postgres_can_be_frozen(private_postgres: PostgresServer) -> None:
    connection = await asyncpg.connect(private_postgres.url())
    private_postgres.freeze()
    query = asyncio.create_task(connection.fetchval("SELECT 1"))
    await stays(lambda: not query.done(), 0.3)
    private_postgres.thaw()
    assert await query == 1
    await connection.close()


async def test_private_pgbouncer_can_be_restarted(private_pgbouncer: PgBouncerServer) -> None:
    url = private_pgbouncer.url("postgres")
    connection = await asyncpg.connect(url)
    private_pgbouncer.restart()
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.fetchval("SELECT 1")
    again = await asyncpg.connect(url)
    assert await again.fetchval("SELECT 1") == 1
    await again.close()


# --- RabbitMQ ------------------------------------------------------------------------------------------------------


async def _publish(url: str, queue: str, count: int) -> None:
    """Publish confirmed messages to a quorum queue that is declared here."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue(queue, durable=True, arguments={"x-queue-type": "quorum"})
        for number in range(count):
            message = aio_pika.Message(str(number).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, routing_key=queue)


async def _keep_unacked(message: aio_pika.abc.AbstractIncomingMessage) -> None:
    """Take a delivery and never answer it."""


@pytest.mark.parametrize("round_number", [1, 2])
async def test_every_test_has_a_virtual_host_of_its_own(rabbitmq: VirtualHost, round_number: int) -> None:
    assert rabbitmq.queues() == {}
    await _publish(rabbitmq.url, "letters", round_number)
    await eventually(lambda: rabbitmq.queue("letters").ready == round_number)


async def test_queue_counts_tell_ready_unacked_and_consumers(rabbitmq: VirtualHost) -> None:
    await _publish(rabbitmq.url, "letters", 5)
    connection = await aio_pika.connect(rabbitmq.url)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=2)
        queue = await channel.get_queue("letters", ensure=False)
        await queue.consume(_keep_unacked)
        await eventually(lambda: rabbitmq.queue("letters") == QueueCounts("letters", "quorum", 3, 2, 1))
        assert rabbitmq.queue("letters").total == 5
    await eventually(lambda: rabbitmq.queue("letters").ready == 5)
    rabbitmq.purge()
    await eventually(rabbitmq.is_empty)


async def test_broker_can_cut_the_connections_of_one_test(rabbitmq: VirtualHost) -> None:
    connection = await aio_pika.connect(rabbitmq.url)
    closed = asyncio.Event()
    connection.close_callbacks.add(lambda *_: closed.set())
    await eventually(lambda: rabbitmq.close_connections() == 1)
    await asyncio.wait_for(closed.wait(), 5)
    await connection.close()


async def test_cluster_survives_the_loss_and_return_of_a_node(rabbitmq_cluster: RabbitCluster) -> None:
    cluster = rabbitmq_cluster
    names = sorted(node.name for node in cluster.nodes)
    assert len(names) == 3
    await _publish(cluster.urls[0], "letters", 3)
    assert cluster.management.queue_members(cluster.name, "letters") == names

    cluster.nodes[0].kill()
    assert not cluster.nodes[0].is_running()
    await eventually(lambda: cluster.management.running_nodes() == names[1:], 20)
    await _publish(cluster.urls[1], "letters", 2)
    await eventually(lambda: cluster.queue("letters").ready == 5)

    cluster.nodes[0].start()
    await eventually(lambda: cluster.management.running_nodes() == names, 20)


async def test_cluster_keeps_messages_when_all_nodes_are_killed(rabbitmq_cluster: RabbitCluster) -> None:
    await _publish(rabbitmq_cluster.urls[2], "letters", 4)
    await eventually(lambda: rabbitmq_cluster.queue_is_on_disk("letters"))
    rabbitmq_cluster.restart_all()
    await eventually(lambda: rabbitmq_cluster.queue("letters").ready == 4, 20)
