"""The chart's PostgreSQL on this machine: prepared and started as its pod would be."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.charts.containers import Pod, Programs, Secrets
from tests.charts.helm import Rendered, render
from tests.support.discovery import ServerMissing
from tests.support.run_folder import RunFolder
from tests.support.server_process import ServerProcess

SERVICE = "bobrai-postgresql.bobrai.svc"
START_SECONDS = 30.0

AWKWARD = """a'b"c\\d$e `f` %s:@/#&?=; ü\t{}"""
SECRETS: Secrets = {
    "bobrai-postgresql": {
        "username": "bobrai",
        "password": AWKWARD,
        "postgres-password": "super" + AWKWARD,
        "replication-password": "replica" + AWKWARD,
        "monitoring-password": "monitoring" + AWKWARD,
        "stats-password": "stats" + AWKWARD,
    }
}


def programs(run: RunFolder) -> Programs:
    """PostgreSQL 18's programs; raises `ServerMissing` when what this machine has is older."""
    found = Programs(run, "postgresql", "postgres")
    if not found.version.startswith("18."):
        raise ServerMissing("postgresql", [f"version {found.version}: the chart's settings are for 18"])
    return found


@asynccontextmanager
async def connected(address: dict[str, Any], **options: Any) -> AsyncIterator[asyncpg.Connection]:
    """A connection that is closed at the end of the block."""
    connection = await asyncpg.connect(**{"timeout": 10, **address, **options})
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


class Server:
    """One server of the chart."""

    def __init__(
        self,
        run: RunFolder,
        *,
        values: Mapping[str, Any] | None = None,
        secrets: Secrets = SECRETS,
        name: str = "bobrai-postgresql",
        primary: "Server | None" = None,
    ) -> None:
        self.port = run.free_port()
        self.rendered: Rendered = render(values)
        replace = {"port = '5432'": f"port = '{self.port}'", "listen_addresses = '*'": "listen_addresses = '127.0.0.1'"}
        if primary is not None:
            replace |= {SERVICE: "127.0.0.1"}
        self.pod = Pod(
            run, programs(run), self.rendered, self.rendered.one("StatefulSet", name), secrets=secrets,
            replace=replace, environment={"PGPORT": str(self.port)},
        )  # fmt: skip
        self.process: ServerProcess | None = None
        self._primary = primary

    def prepare(self, **environment: str) -> str:
        """Run the init container; returns what it said, and fails when it did."""
        if self._primary is not None:
            environment = {"PRIMARY_PORT": str(self._primary.port), **environment}
        done = self.pod.run("prepare", **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        """Start the server and wait until the readiness probe passes."""
        self.process = self.pod.start("postgresql")
        probe = self.pod.manifest.container("postgresql")["readinessProbe"]["exec"]["command"]
        self.process.wait_ready(lambda: self.pod.execute("postgresql", *probe).returncode == 0, timeout=START_SECONDS)

    def stop(self) -> None:
        """Stop it as its preStop hook does."""
        if self.process is None or not self.process.is_running():
            return
        hook = self.pod.manifest.container("postgresql")["lifecycle"]["preStop"]["exec"]["command"]
        done = self.pod.execute("postgresql", *hook)
        assert done.returncode == 0, done.stderr
        self.process.wait_gone(timeout=20)

    def address(self, user: str = "bobrai", password: str = AWKWARD, database: str = "bobrai") -> dict[str, Any]:
        """Arguments for `asyncpg.connect`."""
        return {"host": "127.0.0.1", "port": self.port, "user": user, "password": password, "database": database}

    def superuser(self, database: str = "postgres") -> dict[str, Any]:
        """The superuser's, as over `kubectl port-forward`."""
        return self.address("postgres", "super" + AWKWARD, database)
