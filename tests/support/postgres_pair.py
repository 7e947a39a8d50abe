"""Two PostgreSQL servers, a primary and its hot standby, that change roles as a failover tool does it."""

import shutil
import subprocess
from typing import Final

import asyncpg

from tests.support.background import BackgroundLoop
from tests.support.postgres import HOST, SUPERUSER, PostgresServer
from tests.support.run_folder import RunFolder

_REPLICATING: Final = {"wal_level": "replica", "max_wal_senders": "5", "wal_keep_size": "64MB"}


class PostgresPair:
    """The servers by their present roles."""

    def __init__(self, run: RunFolder, name: str) -> None:
        self.primary = PostgresServer.create(run, f"{name}-a", settings=_REPLICATING)
        self.primary.stop()
        folder = run.folder(f"{name}-b")
        subprocess.run(["cp", "-a", "--reflink=auto", str(self.primary.data), str(folder / "data")], check=True)
        self.standby = PostgresServer(run, folder, run.free_port(), settings=_REPLICATING)
        self.primary.start()
        self._follow(self.standby)

    def url(self, database: str = "postgres") -> str:
        """The address of a database on both servers, whichever takes writes."""
        hosts = ",".join(f"{HOST}:{port}" for port in sorted((self.primary.port, self.standby.port)))
        return f"postgresql://{SUPERUSER}@{hosts}/{database}"

    def switch(self) -> None:
        """Stop the primary cleanly, promote the standby, and let the old primary follow it: nothing is lost."""
        self.primary.stop("fast")  # it ends when the standby has everything
        old, self.primary = self.primary, self.standby
        self._run(self.primary, "SELECT pg_promote()")
        self._follow(old)

    def dispose(self) -> None:
        """End both and delete their data."""
        for server in (self.primary, self.standby):
            server.dispose()

    def _follow(self, server: PostgresServer) -> None:
        self.standby = server
        (server.data / "standby.signal").touch()
        shutil.chown(server.data / "standby.signal", server.data.owner(), server.data.group())
        server.settings["primary_conninfo"] = f"host={HOST} port={self.primary.port} user={SUPERUSER}"
        server.start()

    @staticmethod
    def _run(server: PostgresServer, statement: str) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(server.url(), timeout=5)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        loop = BackgroundLoop("postgres-pair")
        try:
            loop.run(run(), timeout=90)
        finally:
            loop.close()
