"""The servers of a test run: each is started when a test first needs it, and shared by all worker processes.

A server that already runs is used where the environment names it (BOBRAI_TEST_DATABASE_URL, BOBRAI_TEST_PGBOUNCER_URL,
BOBRAI_TEST_RABBITMQ_URL with BOBRAI_TEST_RABBITMQ_MANAGEMENT_URL); otherwise `discovery.py` finds programs to run.
`python -m tests.support.servers` finds or installs all of them and says what is missing; with `run`, it starts them and
prints their addresses until Ctrl-C.
"""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.support import discovery
from tests.support.databases import Databases, with_database
from tests.support.discovery import REQUIREMENTS, ServerMissing
from tests.support.pgbouncer import PgBouncerServer
from tests.support.postgres import PostgresServer
from tests.support.rabbitmq import RabbitNode, VirtualHost, start_nodes
from tests.support.rabbitmq_cluster import NODES, RabbitCluster
from tests.support.rabbitmq_management import Management
from tests.support.reaper import Reaper
from tests.support.run_folder import RunFolder

DEFAULT_MANAGEMENT_PORT = 15672


class Servers:
    """One worker process's way to the servers of its run."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._databases: Databases | None = None

    def postgres(self) -> PostgresServer:
        """The shared PostgreSQL server that this run started; never break it: see the fixture `private_postgres`."""
        description = self.run.once("postgres", lambda: self._start_postgres().describe())
        return PostgresServer.attach(self.run, description)

    def _start_postgres(self) -> PostgresServer:
        with self.timed("PostgreSQL"):
            return PostgresServer.create(self.run, "postgres")

    def database_url(self) -> str:
        """The administrator's address of the shared PostgreSQL server, given or started."""
        return os.environ.get(REQUIREMENTS["postgresql"].variable) or self.postgres().url()

    def databases(self) -> Databases:
        """Where databases are made and dropped."""
        if self._databases is None:
            self._databases = Databases(self.run, self.database_url(), self.pooled_url)
        return self._databases

    def pooled_url(self, database: str) -> str:
        """The address of a database of the shared server through the shared PgBouncer."""
        if given := os.environ.get(REQUIREMENTS["pgbouncer"].variable):
            return with_database(given, database)
        description = self.run.once("pgbouncer", lambda: self._start_pgbouncer().describe())
        return PgBouncerServer.attach(self.run, description).url(database)

    def _start_pgbouncer(self) -> PgBouncerServer:
        upstream = self.database_url()
        with self.timed("PgBouncer"):
            return PgBouncerServer.create(self.run, "pgbouncer", upstream)

    def virtual_host(self) -> VirtualHost:
        """A new handle for a virtual host on the shared RabbitMQ, given or started."""
        if given := os.environ.get(REQUIREMENTS["rabbitmq"].variable):
            parts = urlsplit(given)
            default = (
                f"http://{parts.netloc.rpartition(':')[0] if parts.port else parts.netloc}:{DEFAULT_MANAGEMENT_PORT}"
            )
            management = Management(os.environ.get("BOBRAI_TEST_RABBITMQ_MANAGEMENT_URL", default))
            return VirtualHost(given, lambda: management, prefix=self.run.path.name)
        node = RabbitNode(self.run, self.run.once("rabbitmq", self._start_rabbitmq))
        return VirtualHost(node.url("/"), lambda: node.management)

    def _start_rabbitmq(self) -> dict[str, object]:
        with self.timed("RabbitMQ"):
            return start_nodes(self.run, "single", 1)[0]

    @contextlib.contextmanager
    def cluster(self) -> Iterator[RabbitCluster]:
        """The shared three-node cluster, healthy, for this test alone; healed again afterwards."""
        descriptions = self.run.once("rabbitmq-cluster", self._start_cluster)
        with self.run.lock("rabbitmq-cluster-in-use"):
            cluster = RabbitCluster.attach(self.run, descriptions)
            cluster.heal()
            try:
                yield cluster
            finally:
                cluster.heal()

    def _start_cluster(self) -> list[dict[str, object]]:
        with self.timed("RabbitMQ cluster of three nodes"):
            return start_nodes(self.run, "clustered", NODES)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long something took, for the run's summary."""
        started = time.monotonic()
        yield
        with (self.run.path / "timings.txt").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(f"{what}: started in {time.monotonic() - started:.1f} s\n")

    def close(self) -> None:
        """Close this process's own connections; the servers themselves go on until the run ends."""
        if self._databases is not None:
            self._databases.close()


def _find_all(run: RunFolder) -> int:
    """Print where each server comes from; returns how many are missing."""
    missing = 0
    for server, need in REQUIREMENTS.items():
        if os.environ.get(need.variable):
            print(f"{server:<11} given by {need.variable}")
            continue
        try:
            found = discovery.find(run, server)
            print(f"{server:<11} {found.version:<8} {found.origin}")
        except ServerMissing as error:
            print(f"{server:<11} MISSING\n{error}")
            missing += server not in discovery.allowed_missing()
    return missing


def _run_all(run: RunFolder) -> None:
    """Start one of each, print their addresses, and wait for Ctrl-C."""
    servers = Servers(run)
    database = servers.databases().create(migrated=False)
    host = servers.virtual_host()
    host.create()
    print(f"BOBRAI_DATABASE_URL={database.pooled_url}")
    print(f"BOBRAI_DATABASE_DIRECT_URL={database.url}")
    print(f"BOBRAI_RABBITMQ_URL={host.url}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.read()
    servers.close()


def main(arguments: list[str]) -> int:
    """`find` (the default) or `run`; returns the exit code."""
    run = RunFolder.create()
    reaper = Reaper(run)
    try:
        missing = _find_all(run)
        if not missing and arguments == ["run"]:
            _run_all(run)
    finally:
        reaper.finish()
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
