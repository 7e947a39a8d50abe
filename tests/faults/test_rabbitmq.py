"""RabbitMQ loses a node, or all of them, or cannot be reached for long."""

import time
from collections.abc import Callable

from tests.faults.invariants import ANY_TYPE, Expected, check
from tests.faults.service import QUEUE, Service, behind
from tests.support.eventually import eventually, stays
from tests.support.rabbitmq_cluster import RabbitCluster
from tests.support.tcp_proxy import TcpProxy

MakeProxy = Callable[[str, int], TcpProxy]


def cluster_of(service: Service) -> RabbitCluster:
    assert isinstance(service.broker, RabbitCluster)
    return service.broker


async def test_killed_node_costs_no_task_and_no_attempt(clustered: Service) -> None:
    clustered.start(worker=2)
    cluster = cluster_of(clustered)
    with clustered.load.flowing(batch=3, seconds=0.01):
        await clustered.reached("status = 'done'", 50)
        assert len(cluster.management.queue_members(cluster.name, QUEUE)) == 3
        cluster.nodes[0].kill()
        await clustered.reached("status = 'done'", await clustered.count() + 100)
        cluster.heal()
    await check(clustered, Expected(first_attempt_only=ANY_TYPE))


async def test_5000_submits_succeed_while_all_of_rabbitmq_is_down_and_finish_on_its_return(clustered: Service) -> None:
    clustered.start(worker=2)
    cluster = cluster_of(clustered)
    with clustered.load.flowing(batch=3, seconds=0.01):
        # RabbitMQ may lose a queue, and what it has confirmed, when all nodes die within a second of its declaration
        await clustered.reached("status = 'done'", 500)
        cluster.kill_all()
        before = time.monotonic()
        clustered.load.submit(5000, threads=8, keyed=False)
        assert time.monotonic() - before < 60
    await eventually(lambda: not any(p.is_ready() for p in [*clustered.dispatchers, *clustered.workers]), 30)
    assert clustered.apis[0].is_ready(), "the API needs no RabbitMQ"
    cluster.heal()
    await check(clustered, Expected(first_attempt_only=ANY_TYPE))


async def test_broker_out_of_reach_is_waited_for(service: Service, tcp_proxy: MakeProxy) -> None:
    proxy = behind(tcp_proxy, service, "BOBRAI_RABBITMQ_URL")
    service.start(worker=2)
    with service.load.flowing(seconds=0.01):
        await service.reached("status = 'done'", 20)
        proxy.refuse()
        needing = [*service.dispatchers, *service.workers]
        await eventually(lambda: not any(process.is_ready() for process in needing), message="all say not ready")
        await service.reached("status = 'pending'", 100)
        proxy.pass_through()
        for process in needing:
            process.wait_ready()
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_connections_cut_again_and_again_cost_no_attempt(service: Service, tcp_proxy: MakeProxy) -> None:
    proxy = behind(tcp_proxy, service, "BOBRAI_RABBITMQ_URL")
    service.start(worker=2)
    with service.load.flowing(seconds=0.01):
        for _ in range(5):
            await service.reached("status = 'done'", await service.count("status = 'done'") + 30)
            await eventually(lambda: proxy.cut() > 0, message="something is connected again, and cut")
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_silent_broker_is_noticed_and_waited_for(service: Service, tcp_proxy: MakeProxy) -> None:
    proxy = behind(tcp_proxy, service, "BOBRAI_RABBITMQ_URL")
    service.settings["BOBRAI_RABBITMQ_URL"] += "?heartbeat=1"
    service.start(worker=2)
    with service.load.flowing(seconds=0.01):
        await service.reached("status = 'done'", 20)
        proxy.blackhole()
        needing = [*service.dispatchers, *service.workers]
        await eventually(lambda: not any(process.is_ready() for process in needing), 30, message="all say not ready")
        proxy.pass_through()
        for process in needing:
            process.wait_ready()
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_running_tasks_end_while_the_broker_is_away(service: Service, tcp_proxy: MakeProxy) -> None:
    proxy = behind(tcp_proxy, service, "BOBRAI_RABBITMQ_URL")
    service.start()
    service.load.submit(5, type="effect", gate="go")
    await service.reached("status = 'processing'", 5)
    proxy.refuse()
    await eventually(lambda: not service.workers[0].is_ready(), message="the worker says not ready")
    service.open_gate("go")
    await service.reached("status = 'done'", 5)
    proxy.pass_through()
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_cut_from_the_brokers_side_is_healed(service: Service) -> None:
    service.start(worker=2)
    with service.load.flowing(seconds=0.01):
        await service.reached("status = 'done'", 20)
        await eventually(lambda: service.broker.close_connections() >= 3, message="the broker cut every connection")
        await service.reached("status = 'done'", await service.count("status = 'done'") + 50)
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_deleted_queue_is_declared_again(service: Service) -> None:
    service.settings["BOBRAI_DISPATCHER_SWEEP_GRACE_SECONDS"] = "1"
    service.start()
    with service.load.flowing(seconds=0.01):
        await service.reached("status = 'done'", 20)
        service.broker.management.call("DELETE", f"/queues/{service.broker.name}/{QUEUE}")
        await service.reached("status = 'done'", await service.count() + 50)
    await check(service, Expected(swept=True, first_attempt_only=ANY_TYPE))


async def test_publishes_that_a_full_queue_refuses_wait_in_the_outbox(service: Service) -> None:
    policy = f"/policies/{service.broker.name}/short"
    limit = {"pattern": ".*", "apply-to": "queues", "definition": {"max-length": 10, "overflow": "reject-publish"}}
    service.broker.management.call("PUT", policy, limit)
    service.settings["BOBRAI_DISPATCHER_WINDOW"] = "100000"
    service.start(worker=0, dispatcher=0)
    # the broker refuses a little late, so that of one round's messages it takes some and refuses the rest
    service.load.submit(2000, batch=500, type="effect")
    service.dispatcher()
    refused = "bobrai_hints_refused_total"
    await eventually(lambda: service.metric(refused, service.dispatchers) > 0, 20, message="hints were refused")
    service.broker.management.call("DELETE", policy)
    service.worker()
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_processes_stay_up_and_live_without_their_broker(service: Service, tcp_proxy: MakeProxy) -> None:
    proxy = behind(tcp_proxy, service, "BOBRAI_RABBITMQ_URL")
    service.start()
    proxy.refuse()
    needing = [*service.dispatchers, *service.workers]
    await eventually(lambda: not any(process.is_ready() for process in needing), message="all say not ready")
    await stays(lambda: all(process.get("/livez")[0] == 200 for process in needing), 1, message="all are live")
    proxy.pass_through()
    for process in needing:
        process.wait_ready()
    await check(service)
