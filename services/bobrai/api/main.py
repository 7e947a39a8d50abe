"""The composition root of the API process: settings become a pool, a catalog, an application and a server.

In: settings and the wish to stop. Out: HTTP until then, and the requests that are open finished. The process serves
while its database is away: it waits out a short outage, then answers 503; the log says so once.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from bobrai.access.authenticator import Authenticator
from bobrai.access.keyring import Keyring
from bobrai.api import app, gateway, openapi, routes
from bobrai.api.bodies import Bodies
from bobrai.api.catalog import Catalog
from bobrai.api.endpoint import ANSWER_SECONDS
from bobrai.api.key_routes import KeyRoutes
from bobrai.api.operations import Operation
from bobrai.api.probe import DatabaseProbe
from bobrai.api.queue_routes import QueueRoutes
from bobrai.api.scaling_routes import ScalingRoutes
from bobrai.api.server import HttpServer
from bobrai.api.submissions import Submissions
from bobrai.api.system_routes import SystemRoutes
from bobrai.api.task_routes import TaskRoutes
from bobrai.api.type_routes import TypeRoutes
from bobrai.api.waiters import Waiters
from bobrai.domain.access import Principal, anonymous
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
_LONGEST_PAUSE_SECONDS: Final = 2.0  # until the metric of a database that came back says so


async def serve(settings: Settings, stop: Stop, *, on_listening: Callable[[], None] | None = None) -> None:
    """Serve HTTP until ``stop``, then let open requests finish; ``on_listening`` is called once connections are taken.

    Raises ConfigurationError for an address that cannot be had, a URL that cannot be read and a root path that cannot
    be told from our own paths.
    """
    database = Database(settings.database, name="bobrai-api")
    await database.open()
    await _check_url(database)
    listener = listen(settings.api.bind, "BOBRAI_API_BIND")
    catalog = Catalog(database, settings.api)
    patient = PatientDatabase(database, _PATIENCE_SECONDS)
    keyring = Keyring(
        database, patient, refresh_seconds=settings.auth.refresh_seconds, stale_seconds=settings.auth.stale_seconds
    )
    access = Authenticator(keyring, anonymous(settings.auth.anonymous(settings.api.bind)))
    submissions = Submissions(patient, catalog)
    waiters = Waiters(database, settings.api.wait_tick_seconds)
    catalog_loop = PeriodicLoop(
        "catalog", settings.api.refresh_seconds, catalog.run_once, longest_pause_seconds=_LONGEST_PAUSE_SECONDS
    )
    keys_loop = PeriodicLoop(
        "keys", settings.auth.refresh_seconds, keyring.run_once, longest_pause_seconds=_LONGEST_PAUSE_SECONDS
    )
    waiters_loop = PeriodicLoop("waiters", settings.api.wait_tick_seconds, waiters.run_once)
    waiters.wake = waiters_loop.wake
    probe = DatabaseProbe(database)
    operations = _operations(settings, patient, probe, catalog, access, keyring, submissions, waiters, stop)
    _warn_of_open(settings.api.bind, access.anonymous)
    try:
        application = app.build(operations, access, Bodies(settings.api.max_bodies_bytes))
        served = gateway.behind(application, settings.api, operations)
        server = HttpServer(served, settings.api, lambda: _listening(listener, on_listening))
        async with asyncio.TaskGroup() as group:
            group.create_task(catalog_loop.run(stop))
            group.create_task(waiters_loop.run(stop))
            group.create_task(keys_loop.run(stop))
            group.create_task(Wakeups(settings.database, CHANNEL, keys_loop.wake, name="notify_access").run(stop))
            group.create_task(_drain_on(stop, server, waiters))
            await server.serve(sockets=[listener])
            stop.request("the server ended")
        await submissions.idle()
    finally:
        listener.close()
        await patient.close()
        await database.close()
    log.info("api.stopped", reason=stop.reason)


def _operations(
    settings: Settings,
    database: PatientDatabase,
    probe: DatabaseProbe,
    catalog: Catalog,
    access: Authenticator,
    keyring: Keyring,
    submissions: Submissions,
    waiters: Waiters,
    stop: Stop,
) -> list[Operation]:
    system = SystemRoutes(
        catalog, access, probe, stop, lambda types: openapi.build(operations, types, access.anonymous)
    )
    token = settings.api.scaling_token
    stale_seconds = settings.external_metrics.stale_seconds
    operations = routes.operations(
        TaskRoutes(database, submissions, waiters, settings.api),
        QueueRoutes(database, catalog.run_once),
        TypeRoutes(database),
        KeyRoutes(database, keyring.run_once),
        system,
        ScalingRoutes(database, token, stale_seconds) if token.get_secret_value() else None,
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


def _listening(listener: socket.socket, on_listening: Callable[[], None] | None) -> None:
    host, port = listener.getsockname()[:2]
    log.info("api.listening", host=host, port=port)
    if on_listening is not None:
        on_listening()
