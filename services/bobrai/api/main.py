"""The composition root of the API process: settings become a pool, a catalog, an application and a server.

In: settings and the wish to stop. Out: HTTP until then, and the requests that are open finished. The process serves
while its database is away: it waits out a short outage, then answers 503; the log says so once.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from bobrai.access.gate import Gate
from bobrai.api import app, cors, gateway, openapi, routes
from bobrai.api.allowances import Allowances
from bobrai.api.audit_routes import AuditRoutes
from bobrai.api.catalog import Catalog
from bobrai.api.endpoint import ANSWER_SECONDS
from bobrai.api.key_routes import KeyRoutes
from bobrai.api.operations import Operation
from bobrai.api.probe import DatabaseProbe
from bobrai.api.queue_routes import QueueRoutes
from bobrai.api.scaling_routes import ScalingRoutes
from bobrai.api.server import HttpServer, certificates_of
from bobrai.api.submissions import Submissions
from bobrai.api.system_routes import SystemRoutes
from bobrai.api.task_routes import TaskRoutes
from bobrai.api.type_routes import TypeRoutes
from bobrai.api.waiters import Waiters
from bobrai.api.worker_routes import WorkerRoutes
from bobrai.domain.access import Principal
from bobrai.domain.errors import BobraiError, ConfigurationError
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.loop import PeriodicLoop
from bobrai.runtime.server import listen
from bobrai.runtime.wakeups import Wakeups
from bobrai.settings import Settings
from bobrai.settings.values import is_loopback
from bobrai.store.keys import CHANNEL
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import Database
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_URL_CHECK_SECONDS: Final = 0.2
# Requests wait out an outage that is shorter, such as a restart of PostgreSQL, and are answered before their own time
# is over.
_PATIENCE_SECONDS: Final = ANSWER_SECONDS - 0.5
_ALLOWANCES_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 2.0  # until the metric of a database that came back says so


async def serve(settings: Settings, stop: Stop, *, on_listening: Callable[[int], None] | None = None) -> None:
    """Serve HTTP until ``stop``, then let open requests finish.

    ``on_listening`` gets the port once connections are taken. Raises ConfigurationError for an address that cannot be
    had, a URL that cannot be read, files of TLS that cannot be used and a root path that cannot be told from our own
    paths.
    """
    certificates = certificates_of(settings.api)
    database = Database(settings.database, name="bobrai-api")
    await database.open()
    await _check_url(database)
    listener = listen(settings.api.bind, "BOBRAI_API_BIND")
    catalog = Catalog(database, settings.api)
    patient = PatientDatabase(database, _PATIENCE_SECONDS)
    gate = Gate(database, patient, settings)
    allowances = Allowances(patient)
    waiters = Waiters(database, settings.api.wait_tick_seconds)
    submissions = Submissions(patient, catalog, allowances)
    tasks = TaskRoutes(patient, submissions, allowances, waiters, settings.api)
    probe = DatabaseProbe(database)
    operations = _operations(settings, patient, probe, catalog, gate, tasks, stop)
    _warn_of_open(settings.api.bind, gate.anonymous)
    try:
        application = app.build(operations, gate, settings)
        shared = cors.around(application, settings.api.cors_origins, operations)
        served = gateway.behind(shared, settings.api, operations)
        server = HttpServer(served, settings.api, certificates, lambda: _listening(listener, on_listening))
        async with asyncio.TaskGroup() as group:
            for loop in _loops(settings, catalog, gate, allowances, waiters):
                group.create_task(loop(stop))
            if certificates is not None:
                look = PeriodicLoop("certificates", settings.api.tls_refresh_seconds, certificates.run_once)
                group.create_task(look.run(stop))
            group.create_task(_drain_on(stop, server, waiters))
            await server.serve(sockets=[listener])
            stop.request("the server ended")
        await submissions.idle()
        await gate.close()
    finally:
        listener.close()
        await patient.close()
        await database.close()
    log.info("api.stopped", reason=stop.reason)


def _loops(
    settings: Settings, catalog: Catalog, gate: Gate, allowances: Allowances, waiters: Waiters
) -> list[Callable[[Stop], Coroutine[Any, Any, None]]]:
    """Return what runs beside the server until the process stops."""

    def periodic(name: str, seconds: float, run_once: Callable[[], Awaitable[float]]) -> PeriodicLoop:
        return PeriodicLoop(name, seconds, run_once, longest_pause_seconds=_LONGEST_PAUSE_SECONDS)

    waiting = periodic("waiters", settings.api.wait_tick_seconds, waiters.run_once)
    waiters.wake = waiting.wake
    of_gate: list[PeriodicLoop] = []
    for duty in gate.duties:
        of_gate.append(periodic(duty.name, duty.seconds, duty.run_once))
        duty.wake_with(of_gate[-1].wake)

    def changed() -> None:
        for loop in of_gate:
            loop.wake()

    return [
        periodic("catalog", settings.api.refresh_seconds, catalog.run_once).run,
        waiting.run,
        periodic("allowances", _ALLOWANCES_SECONDS, allowances.run_once).run,
        *(loop.run for loop in of_gate),
        Wakeups(settings.database, CHANNEL, changed, name="notify_access", away=lambda: gate.is_away).run,
    ]


def _operations(
    settings: Settings,
    database: PatientDatabase,
    probe: DatabaseProbe,
    catalog: Catalog,
    gate: Gate,
    tasks: TaskRoutes,
    stop: Stop,
) -> list[Operation]:
    system = SystemRoutes(catalog, gate, probe, stop, lambda types: openapi.build(operations, types, gate.anonymous))
    operations = routes.operations(
        tasks,
        QueueRoutes(database, catalog.run_once),
        TypeRoutes(database),
        WorkerRoutes(database),
        KeyRoutes(database, gate.keyring.run_once),
        AuditRoutes(database),
        system,
        ScalingRoutes(database, settings.external_metrics.stale_seconds),
    )
    return operations


async def _check_url(database: Database) -> None:
    # A pool that connects when it is needed reads its URL only then, and long before anything is sent.
    try:
        async with asyncio.timeout(_URL_CHECK_SECONDS):
            await database.ping()
    except (BobraiError, TimeoutError) as error:
        log.debug("database.silent", error=str(error))  # the catalog's loop logs the outage, once
    except ValueError as error:
        raise ConfigurationError("BOBRAI_DATABASE_URL cannot be read as a PostgreSQL URL") from error


async def _drain_on(stop: Stop, server: HttpServer, waiters: Waiters) -> None:
    await stop.wait()
    waiters.close()
    server.should_exit = True


def _warn_of_open(bind: str, nobody: Principal) -> None:
    """Say loudly that whoever reaches the port from another machine needs no credential."""
    scopes = nobody.grant.named_scopes
    if scopes and not is_loopback(bind):
        log.warning(
            "access.open",
            bind=bind,
            scopes=scopes,
            hint="make keys with `bobrai keys create`, then set BOBRAI_AUTH_ANONYMOUS_SCOPES=none; or name there what "
            "is meant to be open",
        )


def _listening(listener: socket.socket, on_listening: Callable[[int], None] | None) -> None:
    host, port = listener.getsockname()[:2]
    log.info("api.listening", host=host, port=port)
    if on_listening is not None:
        on_listening(port)
