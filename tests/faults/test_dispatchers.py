"""Dispatchers that are killed or replaced while tasks come in; `test_checkpoints.py` kills them at named points."""

from tests.faults.invariants import ANY_TYPE, Expected, check
from tests.faults.service import Service


async def test_killed_dispatcher_is_replaced_by_the_other(service: Service) -> None:
    service.start(dispatcher=2)
    with service.load.flowing(pause=0.002):
        for victim in list(service.dispatchers):
            await service.reached("status = 'done'", await service.count("status = 'done'") + 30)
            victim.kill()
            service.dispatcher(ready=False)
        await service.reached("status = 'done'", await service.count("status = 'done'") + 30)
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_tasks_wait_while_there_is_no_dispatcher(service: Service) -> None:
    service.start(dispatcher=1)
    service.load.submit(20, batch=20)
    await service.reached("status = 'done'", 20)
    leaving = service.dispatchers[0]
    leaving.terminate()
    assert await leaving.exited() == 0
    service.load.submit(200, batch=100, type="effect")
    assert await service.count("status = 'pending'") == 200
    service.dispatcher()
    await check(service, Expected(first_attempt_only=ANY_TYPE))
