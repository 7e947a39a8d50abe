"""The composition root: settings become a pool, a client of Kubernetes, certificates and a server.

In: settings and the wish to stop. Out: external metrics until then. Database and Kubernetes API may be away at any
time, the start included: without the database every value is unknown, without the API nobody is believed yet.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from bobrai.domain.errors import ConfigurationError
from bobrai.external_metrics import app
from bobrai.external_metrics.certificates import ProxyCertificates
from bobrai.external_metrics.deletion_cost import DeletionCost
from bobrai.external_metrics.front_proxy import FrontProxy
from bobrai.external_metrics.kubernetes import Kubernetes
from bobrai.external_metrics.server import HttpsServer
from bobrai.external_metrics.values import Values
from bobrai.runtime.health import HealthServer
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.loop import PeriodicLoop
from bobrai.runtime.server import listen
from bobrai.settings import ExternalMetricsSettings, Settings
from bobrai.store.pool import Database
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_CONNECTIONS = 2


async def serve(settings: Settings, stop: Stop) -> None:
    """Serve until ``stop``, then let open requests finish.

    Raises ConfigurationError for an address that cannot be had, files that are missing and a DSN that cannot be read.
    """
    own = settings.external_metrics
    namespace = _namespace(own)
    certificates = ProxyCertificates(own.certificate, own.key)
    kubernetes = Kubernetes(own.api_server(), Path(own.service_account_dir))
    front_proxy = FrontProxy(kubernetes, certificates.trust)
    database = Database(settings.database, pool_size=_CONNECTIONS, name="bobrai-external-metrics")
    await database.open()

    def ready() -> Mapping[str, bool]:
        # Not whether the database answers: without a ready pod the API server would call the whole group unavailable,
        # and every client that lists all groups would fail, kubectl and the removal of namespaces among them.
        return {"front-proxy": front_proxy.known, "running": not stop.is_set()}

    loops = [
        PeriodicLoop("certificates", own.refresh_seconds, certificates.run_once),
        PeriodicLoop("front_proxy", own.refresh_seconds, front_proxy.run_once),
    ]
    if own.deletion_cost:
        duty = DeletionCost(database, kubernetes, namespace)
        loops.append(PeriodicLoop("deletion_cost", own.deletion_cost_seconds, duty.run_once))
    values = Values(database, namespace, own.stale_seconds)
    server = HttpsServer(app.build(values, front_proxy, ready), certificates, own.drain_seconds)
    listener = listen(own.bind, "BOBRAI_EXTERNAL_METRICS_BIND")
    try:
        health = HealthServer(own.health_bind, "BOBRAI_EXTERNAL_METRICS_HEALTH_BIND", live=lambda: True, ready=ready)
    except ConfigurationError:
        listener.close()
        raise
    health.start()
    try:
        log.info("external_metrics.started", bind=own.bind, namespace=namespace, kubernetes=own.api_server())
        async with asyncio.TaskGroup() as group:
            for loop in loops:
                group.create_task(loop.run(stop))
            group.create_task(_drain_on(stop, server))
            await server.serve(sockets=[listener])
            stop.request("the server ended")
    finally:
        health.stop()
        listener.close()
        await kubernetes.close()
        await database.close()
    log.info("external_metrics.stopped", reason=stop.reason)


async def _drain_on(stop: Stop, server: HttpsServer) -> None:
    await stop.wait()
    server.should_exit = True


def _namespace(own: ExternalMetricsSettings) -> str:
    if own.namespace:
        return own.namespace
    file = Path(own.service_account_dir) / "namespace"
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(
            f"BOBRAI_EXTERNAL_METRICS_NAMESPACE is not set, and {file} does not say in which namespace this pod runs"
        ) from error
