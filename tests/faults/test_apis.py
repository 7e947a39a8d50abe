"""An API that is killed, or asked to leave, while clients submit."""

from tests.faults.invariants import ANY_TYPE, Expected, check
from tests.faults.service import Service


async def test_killed_api_forgets_no_task_that_it_accepted(service: Service) -> None:
    service.start(api=2)
    with service.load.flowing(pause=0.002, threads=4):
        await service.reached("true", 50)
        service.apis[-1].kill()
        await service.reached("true", await service.count() + 50)
    await check(service, Expected(first_attempt_only=ANY_TYPE))


async def test_sigterm_finishes_open_requests(service: Service) -> None:
    service.start(api=2)
    with service.load.flowing(pause=0.002, threads=4):
        await service.reached("true", 50)
        leaving = service.apis[-1]
        leaving.terminate()
        assert await leaving.exited() == 0
    await check(service, Expected(first_attempt_only=ANY_TYPE))
