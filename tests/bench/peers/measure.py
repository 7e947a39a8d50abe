"""How do other task queues do with the same tasks on the same servers? One worker process each, tuned in the run.

Of a few settings the one with the best rate in a short round is kept. A round lasts from the first publish until the
last result is a committed row; the producer's CPU time counts, as the API's does for bobrAI.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from tests.bench.options import Options
from tests.bench.product import ROUND_SECONDS, run_client
from tests.bench.rounds import Round, Rounds, percentiles
from tests.bench.servers import Servers
from tests.bench.usage import CpuMeter, memory_mib
from tests.support import environments
from tests.support.processes import Process

# counting the results costs PostgreSQL about a millisecond, and a round lasts many seconds
POLL_SECONDS = 0.1
RATE = 50


@dataclass(frozen=True)
class Setting:
    """One way to run the peer's worker."""

    label: str
    arguments: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True)
class Peer:
    """Another task queue."""

    name: str
    promise: str
    module: str
    """Starts the names of its application and its producer."""
    environment: dict[str, str]
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    settings: tuple[Setting, ...]
    table: str


def _dramatiq(name: str, *, confirmed: bool) -> Peer:
    return Peer(
        name=name,
        promise="publishes confirmed" if confirmed else "publishes unconfirmed, its default",
        module="dramatiq",
        environment={"PEER_CONFIRMED": "yes" if confirmed else "no"},
        requirements=("dramatiq[rabbitmq]", "psycopg[binary]"),
        command=("dramatiq", "tests.bench.peers.dramatiq_app", "--processes", "1"),
        settings=tuple(
            Setting(
                f"{threads} threads, prefetch {prefetch}",
                ("--threads", str(threads)),
                {"dramatiq_queue_prefetch": str(prefetch)},
            )
            for threads, prefetch in ((2, 50), (4, 8), (4, 100), (8, 100), (16, 100))
        ),
        table="CREATE TABLE results (key text PRIMARY KEY, result text NOT NULL)",
    )


DRAMATIQ = _dramatiq("dramatiq", confirmed=True)
DRAMATIQ_UNCONFIRMED = _dramatiq("dramatiq-unconfirmed", confirmed=False)
TASKIQ = Peer(
    name="taskiq",
    promise="publishes confirmed",
    module="taskiq",
    environment={},
    requirements=("taskiq", "taskiq-aio-pika", "taskiq-postgres[asyncpg]", "uvloop"),
    command=(
        "taskiq", "worker", "tests.bench.peers.taskiq_app:broker", "--workers", "1", "--no-parse",
        "--log-level", "WARNING",
    ),
    settings=tuple(
        Setting(
            f"{tasks} tasks at once, prefetch {prefetch}, {pool} connections",
            ("--max-async-tasks", str(tasks), "--max-prefetch", str(prefetch)),
            {"PEER_PREFETCH": str(tasks + prefetch), "PEER_POOL_SIZE": str(pool)},
        )
        for tasks, prefetch, pool in ((20, 20, 10), (50, 50, 10), (100, 100, 10), (100, 100, 20), (200, 200, 30))
    ),
    table="",
)  # fmt: skip
PEERS = (DRAMATIQ, DRAMATIQ_UNCONFIRMED, TASKIQ)


@dataclass(frozen=True)
class PeerResult:
    """What a peer did, and how it was set."""

    name: str
    promise: str
    setting: str
    tried: dict[str, float]
    rounds: Rounds
    idle: dict[str, float]
    memory: dict[str, float]
    versions: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "promise": self.promise, "setting": self.setting, "tried_per_second": self.tried,
            "end_to_end": self.rounds.as_json(), "idle_ms": self.idle,
            "worker_memory_mib": self.memory, "versions": self.versions,
        }  # fmt: skip


class RunningPeer:
    """A peer's worker on a database and queue of its own."""

    def __init__(self, servers: Servers, bin_folder: Path, worker: Process, connection: asyncpg.Connection) -> None:
        self.servers = servers
        self.worker = worker
        self._bin_folder = bin_folder
        self._connection = connection

    async def client(self, peer: Peer, *arguments: object) -> dict[str, Any]:
        """Run the peer's producer."""
        module = f"tests.bench.peers.{peer.module}_producer"
        return await run_client(self.servers, module, *arguments, python=str(self._bin_folder / "python"))

    async def one_round(self, peer: Peer, count: int) -> Round:
        """Send, and wait for the last result."""
        await self._connection.execute("TRUNCATE results")
        await self._connection.execute("CHECKPOINT")
        meter = CpuMeter({"worker": self.worker.pid, **self.servers.pids()})
        answer = await self.client(peer, "send", count)
        async with asyncio.timeout(ROUND_SECONDS):
            while await self._connection.fetchval("SELECT count(*) FROM results") < count:
                if not self.worker.is_running():
                    raise RuntimeError(f"{peer.name}'s worker has ended:\n{self.worker.log_tail()}")
                await asyncio.sleep(POLL_SECONDS)
        ended_at = time.time()
        cpu = {"producer": answer["cpu_seconds"], **meter.read()}
        distinct = await self._connection.fetchval("SELECT count(DISTINCT result::text) FROM results")
        if distinct != count:
            raise ValueError(f"{peer.name}: {count} results expected, {distinct} different ones stored")
        return Round(count, ended_at - answer["started_at"], cpu)


async def measure(servers: Servers, options: Options, peer: Peer) -> PeerResult:
    """Install, tune, measure."""
    bin_folder = environments.install(peer.module, peer.requirements)
    tried: dict[str, float] = {}
    for setting in peer.settings:
        async with _running(servers, bin_folder, peer, setting) as running:
            await running.one_round(peer, 500)
            tried[setting.label] = (await running.one_round(peer, options.warm_up)).rate
    best = max(peer.settings, key=lambda setting: tried[setting.label])
    async with _running(servers, bin_folder, peer, best) as running:
        await running.one_round(peer, options.warm_up)
        rounds = Rounds([await running.one_round(peer, options.tasks) for _ in range(options.repeats)])
        idle = await running.client(peer, "probe", RATE, options.idle_seconds)
        memory = memory_mib(running.worker.pid)
    return PeerResult(
        peer.name, peer.promise, best.label, tried, rounds, percentiles(idle["latencies"]), memory,
        environments.versions(bin_folder),
    )  # fmt: skip


@asynccontextmanager
async def _running(servers: Servers, bin_folder: Path, peer: Peer, setting: Setting) -> AsyncIterator[RunningPeer]:
    url = await servers.create_database()
    environment = {
        "PEER_DATABASE_URL": url,
        "PEER_RABBITMQ_URL": servers.rabbitmq.url,
        "PEER_QUEUE": url.rpartition("/")[2],
        **peer.environment,
        **setting.environment,
    }
    connection = await asyncpg.connect(url)
    servers.processes.environment = environment
    try:
        if peer.table:
            await connection.execute(peer.table)
        program, *arguments = peer.command
        command = [str(bin_folder / program), *arguments, *setting.arguments]
        worker = servers.processes.run(command, name=peer.name)
        try:
            while not await connection.fetchval("SELECT to_regclass('results')"):
                if not worker.is_running():
                    raise RuntimeError(f"{peer.name}'s worker has ended:\n{worker.log_tail()}")
                await asyncio.sleep(POLL_SECONDS)
            yield RunningPeer(servers, bin_folder, worker, connection)
        finally:
            worker.kill()
    finally:
        servers.processes.environment = {}
        await connection.close()
        await servers.drop_database(url)
