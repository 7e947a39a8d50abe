"""PostgreSQL servers of a test run: the shared one, and private ones that a test may break.

Every server starts on a copy of one data folder that `initdb` made once per run, so a private server is cheap.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import asyncpg

from tests.support import discovery
from tests.support.background import BackgroundLoop
from tests.support.certificates import Pair
from tests.support.eventually import eventually_sync
from tests.support.run_folder import RunFolder
from tests.support.server_process import ServerDied, ServerProcess

HOST = "127.0.0.1"
SUPERUSER = "postgres"
START_SECONDS = 30.0

Build = Literal["postgresql", "postgresql-openssl"]
StopMode = Literal["smart", "fast", "immediate"]
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "300",
    "shared_buffers": "128MB",
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %d ",
    "timezone": "UTC",
}
# tests survive a killed server, not a power cut
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer:
    """One server with its own data folder and port; any worker process may hold a handle to it."""

    def __init__(
        self,
        run: RunFolder,
        folder: Path,
        port: int,
        *,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
        build: Build = "postgresql",
    ) -> None:
        self.host = HOST
        self.port = port
        self.durable = durable
        self.settings = {**SETTINGS, **({} if durable else NOT_DURABLE), **(settings or {})}
        installation = discovery.find(run, build)
        self._process = ServerProcess(run, installation, folder, stop_signal=signal.SIGQUIT)

    @classmethod
    def create(
        cls,
        run: RunFolder,
        name: str,
        *,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
        build: Build = "postgresql",
    ) -> Self:
        """Make a data folder and start a server on it; raises `ServerMissing`. `durable` keeps fsync on."""
        pristine = Path(run.once(f"{build}-pristine", lambda: _initialise(run, build)))
        folder = run.folder(name)
        subprocess.run(["cp", "-a", "--reflink=auto", str(pristine), str(folder / "data")], check=True)
        server = cls(run, folder, run.free_port(), durable=durable, settings=settings, build=build)
        server.start()
        return server

    def describe(self) -> dict[str, Any]:
        """What `attach` needs to make a handle in another process."""
        return {"folder": str(self._process.folder), "port": self.port}

    @classmethod
    def attach(cls, run: RunFolder, description: dict[str, Any]) -> Self:
        """A handle to a server that another worker process started."""
        return cls(run, Path(description["folder"]), description["port"])

    def url(self, database: str = "postgres") -> str:
        """The address of a database, directly, as superuser."""
        return f"postgresql://{SUPERUSER}@{self.host}:{self.port}/{database}"

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self._process.folder / "data"

    @property
    def version(self) -> str:
        """The server's version, such as 18.1."""
        return self._process.installation.version

    def start(self) -> None:
        """Start it and wait until it answers queries."""
        settings = [f"--{name}={value}" for name, value in self.settings.items()]

        def launch_and_wait() -> bool:
            self._process.start("postgres", "-D", str(self.data), "-p", str(self.port), *settings)
            self._process.wait_ready(self.answers, timeout=START_SECONDS)
            return True

        # a killed postmaster's children take a moment to notice, and hold its shared memory until then
        with contextlib.suppress(ServerDied):
            launch_and_wait()
            return
        eventually_sync(launch_and_wait, timeout=10, message=f"PostgreSQL starts on port {self.port}")

    def answers(self) -> bool:
        """Whether it answers a query now."""
        loop = BackgroundLoop("postgres-probe")
        try:
            return loop.run(_select_one(self.url()), timeout=5)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return False
        finally:
            loop.close()

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop it: `fast` cuts all connections and shuts down cleanly, `immediate` is a crash of the server."""
        self._process.stop(STOP_SIGNALS[mode])

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        self._process.kill()

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start again, on the same port and data."""
        self.stop(mode)
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._process.send_to_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._process.send_to_all(signal.SIGCONT)

    def is_running(self) -> bool:
        """Whether its main process lives."""
        return self._process.is_running()

    def dispose(self) -> None:
        """Stop it for good, quickly, and delete its data."""
        self._process.send_to_all(signal.SIGCONT)
        self._process.send(signal.SIGQUIT)
        self._process.wait_gone(timeout=10)
        subprocess.run(["rm", "-rf", str(self.data)], check=True)

    async def show(self, pair: Pair, clients: Path | None = None) -> None:
        """Let it serve TLS with this certificate from now on, and ask clients for one of these authorities'."""
        owner = self.data.stat()
        settings = {"ssl_cert_file": pair.certificate, "ssl_key_file": pair.key, "ssl_ca_file": clients}
        connection = await asyncpg.connect(self.url(), ssl="disable")
        try:
            for name, source in settings.items():
                target = self.data / f"{name}.pem"
                if source is not None:
                    target.write_bytes(source.read_bytes())
                    target.chmod(0o600)
                    os.chown(target, owner.st_uid, owner.st_gid)
                value = target.name if source is not None else ""
                await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            await connection.execute("ALTER SYSTEM SET ssl = on")
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            await connection.close()

    def log_tail(self) -> str:
        """The end of the server's log."""
        return self._process.log_tail()


async def _select_one(url: str) -> bool:
    connection = await asyncpg.connect(url, timeout=3)
    try:
        return bool(await connection.fetchval("SELECT 1"))
    finally:
        await connection.close()


def _initialise(run: RunFolder, build: Build) -> str:
    """Run initdb once; the folder is only ever copied."""
    installation = discovery.find(run, build)
    folder = run.folder(f"{build}-pristine")
    data = folder / "data"
    options = ["--auth=trust", f"--username={SUPERUSER}", "--encoding=UTF8", "--no-locale", "--no-sync"]
    command = installation.command("initdb", *options, "-D", str(data), share=folder)
    user = installation.user
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, user=user, cwd="/", stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise ServerDied(f"initdb failed:\n{done.stdout}{done.stderr}")
    return str(data)
