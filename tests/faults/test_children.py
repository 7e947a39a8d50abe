"""Workers that die at random, and answers that are lost: every parent has exactly the children of its last attempt."""

import random
from collections.abc import Callable

from tests.faults.handlers import CHILDREN
from tests.faults.invariants import check
from tests.faults.service import SHORT_LEASE, Service, behind
from tests.faults.test_workers import running_on
from tests.support.tcp_proxy import TcpProxy

MakeProxy = Callable[[str, int], TcpProxy]

FAMILIES = ("family", "family-thread", "family-effect", "family-process", "family-effect-process", "family-batch")


async def test_workers_killed_at_random_leave_every_parent_with_exactly_its_children(service: Service) -> None:
    service.settings |= SHORT_LEASE
    service.start(worker=2)
    with service.load.flowing(types=FAMILIES, seconds=0.05, batch=5, threads=1, max_attempts=20):
        for number in range(4):
            victim = service.workers[number]
            await service.reached("status = 'done' AND parent_id IS NULL", 10 * (number + 1))
            await running_on(service, victim)
            (victim.kill if number % 2 == 0 else random.choice((victim.kill, victim.terminate)))()
            service.worker()
    await check(service)
    assert await service.count("losses > 0 AND parent_id IS NULL"), "no parent was lost: the case proved nothing"
    assert {row["type"] for row in await service.tasks("type", "parent_id IS NULL")} == set(FAMILIES)
    assert await service.count("parent_id IS NOT NULL") == CHILDREN * len(service.load.accepted)


async def test_answers_lost_on_the_way_double_no_child(service: Service, tcp_proxy: MakeProxy) -> None:
    pooled = behind(tcp_proxy, service, "BOBRAI_DATABASE_URL")
    service.start(worker=1)
    with service.load.flowing(types=FAMILIES, batch=5, threads=2, max_attempts=20):
        for _ in range(5):
            await service.reached("status = 'done'", await service.count("status = 'done'") + 30)
            # whatever is under way when the line is cut was carried out, and nobody heard of it
            pooled.latency(0.1)
            await service.reached("status = 'processing'", 1)
            assert pooled.cut() > 0
            pooled.latency(0)
    await check(service)
    assert service.metric("bobrai_claims_lost_total", service.workers) == 0
    assert await service.count("parent_id IS NOT NULL") == CHILDREN * len(service.load.accepted)
