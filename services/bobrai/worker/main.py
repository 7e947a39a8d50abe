"""The worker process, composed: settings ▶ database, broker, health port, worker; then drain and an orderly end.

In: settings, a broker, which it starts and its maker closes, a registry. Out: returns when ``stop`` is set, or when the
worker recycles itself, and the drain is over. RabbitMQ and PostgreSQL may be away at any time: it waits, not ready.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from bobrai.broker.port import Broker
from bobrai.domain.errors import StoreRejected, Unavailable
from bobrai.handlers.registry import Registry
from bobrai.runtime.health import HealthServer
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.outage import Outage
from bobrai.settings import Settings
from bobrai.store import queues, task_types
from bobrai.store.pool import Database
from bobrai.telemetry import logs
from bobrai.worker import isolation
from bobrai.worker.lifespan import STOP_SECONDS, Lifespan
from bobrai.worker.worker import Worker

log = logs.get_logger(__name__)


async def serve(settings: Settings, broker: Broker, registry: Registry, stop: Stop) -> None:
    """Run handlers until the process should end.

    Raises ConfigurationError for a wrong address, a taken health port, a type that cannot be announced, or a start-up
    function that fails.
    """
    registry.resolve()
    isolation.check(registry)
    database = Database(settings.database, name="bobrai-worker")
    handlers_database = Database(settings.database, name="bobrai-handlers")
    await database.open()
    await handlers_database.open()
    worker = Worker(settings, database, handlers_database, broker, registry)
    health = HealthServer(
        settings.worker.health_bind,
        "BOBRAI_WORKER_HEALTH_BIND",
        live=lambda: worker.watch.blocked_for < settings.worker.blocked_limit_seconds,
        ready=lambda: {
            "database": worker.heartbeat.reaches_database,
            "lease": worker.heartbeat.holds_lease,
            "consuming": worker.is_consuming,
        },
    )
    health.start()
    own_stop = Stop()  # also set when the worker recycles itself
    forwarding = asyncio.create_task(_forward(stop, own_stop))
    lifespan = Lifespan(registry)
    try:
        starting_up = lifespan.start(settings.worker.startup_seconds)
        if await _unless_stopped(starting_up, own_stop):
            worker.heartbeat.start()
            await broker.start()
            announced = await _announce(database, registry, settings, own_stop)
            if announced and await _unless_stopped(worker.registered(), own_stop):
                worker.consume()
                await worker.tend_until(own_stop)
            await worker.drain()
    finally:
        forwarding.cancel()
        await worker.heartbeat.stop()
        worker.executor.close()
        await lifespan.stop(STOP_SECONDS)
        await database.close()
        await handlers_database.close()
        health.stop()
    log.info("worker.stopped", reason=own_stop.reason, tasks=worker.executor.ended)


async def _forward(outer: Stop, inner: Stop) -> None:
    await outer.wait()
    inner.request(outer.reason)


async def _unless_stopped(work: Coroutine[Any, Any, None], stop: Stop) -> bool:
    """Wait for the end of some work, as for the lease; returns False when the process should end before that."""
    waiting = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not waiting.done():
        waiting.cancel()
        return False
    waiting.result()
    return not stop.is_set()


async def _announce(database: Database, registry: Registry, settings: Settings, stop: Stop) -> bool:
    """Tell the API which types exist; returns False when the process should end before the database is there."""
    outage = Outage("announcement")
    while not stop.is_set():
        try:
            await task_types.announce(database, registry.types())
            await queues.ensure(database, settings.worker.queues)
        except (Unavailable, StoreRejected) as error:  # the latter speaks of values, but anybody's trigger can say it
            await stop.wait_for(outage.failed(error))
        else:
            outage.over()
            return True
    return False
