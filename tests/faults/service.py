"""The whole service under test: any number of real api, dispatcher and worker processes on real servers.

In: a database, a broker, and settings that make cases quick. Out: processes to break, addresses to break the way to,
and looks at what they did. Next: `load.py` submits to it, `invariants.py` judges it.
"""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bobrai.handlers import registry
from bobrai.settings import DatabaseSettings
from bobrai.store import task_types
from bobrai.store.pool import Database as Pool
from tests.faults import audit, handlers
from tests.faults.load import Load
from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.processes import Process, Processes
from tests.support.rabbitmq import VirtualHost
from tests.support.tcp_proxy import TcpProxy

QUEUE = "bobrai.default"
DEAD_LETTERS = "bobrai._dead-letters"

# Quick enough to wait for, slow enough that a busy machine does not look like a fault.
SETTINGS = {
    "BOBRAI_HANDLERS": handlers.__name__,
    "BOBRAI_LOG_LEVEL": "info",
    "BOBRAI_LOG_FORMAT": "json",
    "BOBRAI_WORKER_CONCURRENCY": "10",
    "BOBRAI_WORKER_LEASE_SECONDS": "15",
    "BOBRAI_WORKER_HEARTBEAT_SECONDS": "0.3",
    "BOBRAI_DISPATCHER_REAP_SECONDS": "0.2",
    "BOBRAI_DISPATCHER_SWEEP_SECONDS": "0.3",
    "BOBRAI_DISPATCHER_MEASURE_SECONDS": "0.2",
    "BOBRAI_DATABASE_CONNECT_TIMEOUT_SECONDS": "2",
    "BOBRAI_DATABASE_COMMAND_TIMEOUT_SECONDS": "3",
    "BOBRAI_RABBITMQ_CONNECT_TIMEOUT_SECONDS": "2",
    "BOBRAI_RABBITMQ_CONFIRM_TIMEOUT_SECONDS": "3",
}
SHORT_LEASE = {"BOBRAI_WORKER_LEASE_SECONDS": "2"}
# Cases that lose messages: elsewhere the production grace stays, so that the sweeper cannot hide a defect.
SHORT_GRACE = {"BOBRAI_DISPATCHER_SWEEP_GRACE_SECONDS": "1"}


class Service:
    """One installation of bobrAI, all of it this test's own."""

    def __init__(self, processes: Processes, database: Database, broker: VirtualHost, folder: Path) -> None:
        self.processes = processes
        self.database = database
        self.broker = broker
        self.folder = folder
        self.load = Load(self.api_port)
        self.apis: list[Process] = []
        self.dispatchers: list[Process] = []
        self.workers: list[Process] = []
        self.settings = processes.environment
        """Given to every process started from now on."""
        self.settings |= {
            **SETTINGS,
            handlers.FOLDER_VARIABLE: str(folder),
            "BOBRAI_DATABASE_URL": database.pooled_url,
            "BOBRAI_DATABASE_DIRECT_URL": database.url,
            "BOBRAI_RABBITMQ_URL": getattr(broker, "settings_url", broker.url),
        }

    async def prepare(self) -> None:
        """Record every transition of the migrated database, and announce the fault cases' task types."""
        await self.database.execute(audit.SCHEMA)
        pool = Pool(DatabaseSettings(url=self.database.url), pool_size=1)  # type: ignore[arg-type]
        await pool.open()
        try:
            await task_types.announce(pool, registry.load((handlers.__name__,)).types())
        finally:
            await pool.close()

    # --- processes ---------------------------------------------------------------------------------------------------

    def start(self, *, api: int = 1, dispatcher: int = 1, worker: int = 1, ready: bool = True) -> None:
        """Start processes side by side, and wait until all of them are ready."""
        started = [
            *(self.worker(ready=False) for _ in range(worker)),
            *(self.dispatcher(ready=False) for _ in range(dispatcher)),
            *(self.api(ready=False) for _ in range(api)),
        ]
        for process in started if ready else []:
            process.wait_ready()

    def api(self, *, ready: bool = True, **settings: str) -> Process:
        """Start one more API; it logs no request, since each is a line."""
        return self._start(self.apis, "api", {"BOBRAI_LOG_LEVEL": "warning"} | settings, ready=ready)

    def dispatcher(self, *, ready: bool = True, **settings: str) -> Process:
        """Start one more dispatcher."""
        return self._start(self.dispatchers, "dispatcher", settings, ready=ready)

    def worker(self, *, ready: bool = True, **settings: str) -> Process:
        """Start one more worker."""
        return self._start(self.workers, "worker", settings, ready=ready)

    def _start(self, kind: list[Process], command: str, settings: dict[str, str], *, ready: bool) -> Process:
        process = self.processes.start(command, environment=settings, wait_ready=ready)
        kind.append(process)
        return process

    def all(self) -> list[Process]:
        """Every process of the three kinds, those that have ended included."""
        return [*self.apis, *self.dispatchers, *self.workers]

    def api_port(self) -> int:
        """The port of an API that runs, the newest first."""
        running = [api for api in self.apis if api.is_running()]
        assert running, "no API runs"
        assert running[-1].port is not None
        return running[-1].port

    def metric(self, name: str, processes: list[Process] | None = None) -> float:
        """The sum of a metric's samples over all its labels and the given processes (all that run)."""
        chosen = [process for process in self.all() if process.is_running()] if processes is None else processes
        pattern = re.compile(rf"^{name}(?:\{{.*\}})? (\S+)$", re.MULTILINE)
        texts = [process.get("/metrics")[1].decode() for process in chosen]
        return sum(float(value) for text in texts for value in pattern.findall(text))

    # --- what the tasks do -------------------------------------------------------------------------------------------

    def open_gate(self, name: str) -> None:
        """Let the handlers that wait for this gate go on."""
        (self.folder / name).touch()

    def starts(self) -> Counter[tuple[int, int, int]]:
        """How often each (task id, attempt, process id) started its handler."""
        file = self.folder / handlers.STARTS
        lines = file.read_text().splitlines() if file.exists() else []
        return Counter((int(task), int(attempt), int(pid)) for task, attempt, pid in map(str.split, lines))

    async def tasks(self, columns: str = "*", where: str = "true") -> list[dict[str, Any]]:
        """Rows of `tasks`, by id."""
        return await self.database.fetch(f"SELECT {columns} FROM tasks WHERE {where} ORDER BY id")

    async def count(self, where: str = "true") -> int:
        """How many tasks are so."""
        return int(await self.database.fetchval(f"SELECT count(*) FROM tasks WHERE {where}"))

    async def reached(self, where: str, least: int = 1, timeout: float = 30.0) -> None:
        """Wait until at least so many tasks are so."""

        async def enough() -> bool:
            return await self.count(where) >= least

        await eventually(enough, timeout, message=f"{least} tasks are {where}")


def behind(make_proxy: Callable[[str, int], TcpProxy], service: Service, variable: str) -> TcpProxy:
    """Put a proxy between the service's future processes and the server that a setting names."""
    parts = urlsplit(service.settings[variable])
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = make_proxy(parts.hostname, parts.port)
    service.settings[variable] = proxy.url(service.settings[variable])
    return proxy
