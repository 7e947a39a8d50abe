"""A whole bobrAI under load, with everything that Prometheus scrapes in a cluster: the chart's parts as processes.

In: a run's servers. Out: a Prometheus that sees all of it. Two dispatchers run, so that figures of the whole
installation would show if they were counted twice. Next: `traffic.py` is the load.
"""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.observe import handlers, programs, traffic
from tests.observe.autoscaler import Autoscaler
from tests.observe.prometheus import Prometheus, Target
from tests.support.databases import Database
from tests.support.eventually import eventually_sync
from tests.support.identity_provider import AUDIENCE, IdentityProvider
from tests.support.processes import Process, Processes
from tests.support.rabbitmq import RabbitNode, VirtualHost, start_nodes
from tests.support.servers import Servers

HERE = Path(__file__).parent
NAMESPACE = "shop"
QUEUES = "default,media,reports"
START_SECONDS = 30.0
TOKEN_SECONDS = 86_400

SETTINGS = {
    "BOBRAI_HANDLERS": handlers.__name__,
    "BOBRAI_LOG_LEVEL": "warning",
    "BOBRAI_WORKER_CONCURRENCY": "10",
    "BOBRAI_WORKER_QUEUES": QUEUES,
    "BOBRAI_WORKER_LEASE_SECONDS": "4",
    "BOBRAI_WORKER_HEARTBEAT_SECONDS": "0.5",
    "BOBRAI_WORKER_BLOCKED_SECONDS": "0.2",
    # so that there is something that needs a key, and a guess too many
    "BOBRAI_AUTH_ANONYMOUS_SCOPES": "tasks:submit,tasks:read,tasks:payload,tasks:control,queues:read",
    "BOBRAI_AUTH_REFUSED_RATE": "5/s",
}
# what the chart's PodMonitor asks RabbitMQ for, see charts/bobrai/templates/monitoring
DETAILED = {"family": ["queue_coarse_metrics", "queue_consumer_count"]}


class Installation:
    """The processes, and the targets that Prometheus scrapes."""

    def __init__(self, servers: Servers, processes: Processes, folder: Path) -> None:
        self.processes = processes
        self.targets: list[Target] = []
        self.workers: list[Process] = []
        self.token = ""
        """Of the identity provider that the API believes."""
        self._servers = servers
        self._folder = folder
        self._run = servers.run

    @contextlib.contextmanager
    def started(self) -> Iterator[Prometheus]:
        """Everything runs and is scraped inside the block; the processes end with `Processes.close`."""
        with contextlib.ExitStack() as stack:
            database = self._servers.databases().create()
            stack.callback(self._servers.databases().drop, database)
            autoscaler = Autoscaler(self._folder / "kubernetes", self._run.free_port())
            stack.callback(autoscaler.close)
            stack.callback(self.processes.close)
            yield self._start(database, autoscaler)

    def _start(self, database: Database, autoscaler: Autoscaler) -> Prometheus:
        broker = self._broker()
        self.processes.environment |= {
            **SETTINGS,
            **autoscaler.environment,
            "BOBRAI_DATABASE_URL": database.pooled_url,
            "BOBRAI_DATABASE_DIRECT_URL": database.url,
            "BOBRAI_RABBITMQ_URL": broker.url,
        }
        self._exporters(database)
        self._identities()
        self._python("tests.observe.trace_receiver", str(traces := self._run.free_port()))
        self.processes.environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"http://127.0.0.1:{traces}/v1/traces"
        self.workers = [self._part("worker", number) for number in range(2)]
        parts = [*self.workers, *(self._part("dispatcher", number) for number in range(2))]
        parts += [self._part("external-metrics", 0), self._part("api", 0)]
        for part in parts:
            part.wait_ready(START_SECONDS)
        self.api = parts[-1]
        eventually_sync(self._types_known, START_SECONDS, message="the API knows every task type")
        eventually_sync(autoscaler.is_answered, START_SECONDS, message="the autoscaler is told of a backlog")
        return Prometheus.start(self._run, self.processes, self._folder, self.targets, NAMESPACE)

    def add_worker(self) -> None:
        """One more, which nobody scrapes: it does what a killed one no longer does."""
        self.processes.start("worker", wait_ready=False)

    def _types_known(self) -> bool:
        """Whether the workers have announced what they run, so that the API takes it."""
        return traffic.is_taken(self.api.port or 0)

    def _part(self, command: str, number: int) -> Process:
        process = self.processes.start(command, wait_ready=False)
        assert process.port is not None
        self.targets.append(Target(f"bobrai-{command}", f"bobrai-{command}-{number}", process.port))
        return process

    def _broker(self) -> VirtualHost:
        node = RabbitNode(self._run, start_nodes(self._run, "observe", 1, metrics=True)[0])
        assert node.metrics_port is not None
        self.targets.append(Target("bobrai-rabbitmq", "bobrai-rabbitmq-0", node.metrics_port))
        self.targets.append(
            Target("bobrai-rabbitmq", "bobrai-rabbitmq-0", node.metrics_port, "/metrics/detailed", DETAILED)
        )
        host = VirtualHost(node.url("/"), lambda: node.management)
        host.create()
        return host

    def _exporters(self, database: Database) -> None:
        pgbouncer, postgresql, kubelet = (self._run.free_port() for _ in range(3))
        pooler_port = urlsplit(database.pooled_url).port
        command = [
            programs.find(self._run, "prometheus-postgres-exporter"),
            f"--web.listen-address=127.0.0.1:{postgresql}",
        ]
        # that one fails on PostgreSQL 17 and later, at this age of the exporter
        command += ["--no-collector.bgwriter", f"--extend.query-path={HERE / 'postgres_queries.yaml'}"]
        source = {"DATA_SOURCE_NAME": f"{database.url}?sslmode=disable"}
        self.processes.run(command, name="postgres-exporter", environment=source)
        self._python("tests.observe.pgbouncer_exporter", str(pgbouncer), str(pooler_port))
        self._python("tests.observe.kubelet", str(kubelet), NAMESPACE, "data-bobrai-postgresql-0", str(self._run.path))
        self.targets.append(Target("bobrai-postgresql", "bobrai-postgresql-0", postgresql))
        self.targets.append(Target("bobrai-pgbouncer", "bobrai-pgbouncer-0", pgbouncer))
        self.targets.append(Target("kubelet", "", kubelet))

    def _identities(self) -> None:
        """An identity provider whose tokens the API takes."""
        provider = IdentityProvider(self.processes, self._run.free_port(), algorithms=("ES256",))
        grant = {"scopes": ["tasks:submit", "tasks:read"]}
        issuer = {"name": traffic.ISSUER, "issuer": provider.url, "audiences": [AUDIENCE], "default": grant}
        self.processes.environment["BOBRAI_AUTH_OIDC"] = json.dumps([issuer])
        self.token = provider.token("ES256", claims={"exp": int(time.time()) + TOKEN_SECONDS})

    def _python(self, module: str, *arguments: str) -> None:
        self.processes.run([sys.executable, "-m", module, *arguments], name=module.rpartition(".")[2], environment={})
