"""The dispatcher process: its parts made, run side by side, and ended together.

In: settings, a broker, a wish to stop. Out: published hints and repaired rows. Any number of replicas work without a
leader: rows that one has locked, the others skip. Database and broker may be away at any time, the start included.
"""

import asyncio
from collections.abc import Mapping

from bobrai.broker.port import Broker
from bobrai.dispatcher.deadlines import Deadlines
from bobrai.dispatcher.keeper import Keeper
from bobrai.dispatcher.measuring import Measuring
from bobrai.dispatcher.pruner import Pruner
from bobrai.dispatcher.reaper import Reaper
from bobrai.dispatcher.relay import Relay
from bobrai.dispatcher.sweeper import Sweeper
from bobrai.runtime.health import HealthServer
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.wakeups import Wakeups
from bobrai.settings import Settings
from bobrai.store import outbox
from bobrai.store.pool import Database
from bobrai.telemetry import logs

log = logs.get_logger(__name__)


async def serve(settings: Settings, broker: Broker, stop: Stop) -> None:
    """Dispatch until the process stops, then finish the rounds under way within the drain time.

    Starts the broker, and leaves closing it to whoever made it. Raises ConfigurationError for an address that is taken
    or a DSN that cannot be read.
    """
    database = Database(settings.database, name="bobrai-dispatcher")
    await database.open()
    relay = Relay(settings, database, broker)

    def ready() -> Mapping[str, bool]:
        return {"rabbitmq": broker.connected, "relaying": relay.relaying and not stop.is_set()}

    health = HealthServer(
        settings.dispatcher.health_bind, "BOBRAI_DISPATCHER_HEALTH_BIND", live=lambda: True, ready=ready
    )
    health.start()
    try:
        await broker.start()
        log.info("dispatcher.started", health=settings.dispatcher.health_bind)
        loops = [
            relay.run(stop),
            Wakeups(settings.database, outbox.CHANNEL, relay.wake, name="notify").run(stop),
            Reaper(settings, database).run(stop),
            Deadlines(settings, database).run(stop),
            Sweeper(settings, database, broker).run(stop),
            Measuring(settings, database, broker).run(stop),
            Keeper(settings, database, broker, relay.take_used).run(stop),
            Pruner(settings, database).run(stop),
        ]
        await _until_drained([asyncio.ensure_future(loop) for loop in loops], stop, settings.dispatcher.drain_seconds)
    finally:
        health.stop()
        await database.close()
    log.info("dispatcher.stopped")


async def _until_drained(loops: list["asyncio.Future[None]"], stop: Stop, drain_seconds: float) -> None:
    """Return once all loops ended; after a stop they have the drain time. The first error of a loop is raised."""
    stopping = asyncio.ensure_future(stop.wait())
    try:
        # A loop ends by a defect only; the others then end with it.
        await asyncio.wait([*loops, stopping], return_when=asyncio.FIRST_COMPLETED)
        _, cut_off = await asyncio.wait(loops, timeout=drain_seconds if stop.is_set() else 0)
        if cut_off and stop.is_set():
            log.warning("dispatcher.drain_timeout", seconds=drain_seconds, loops=len(cut_off))
    finally:
        for task in (stopping, *loops):
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
    for loop in loops:
        if not loop.cancelled():
            loop.result()
