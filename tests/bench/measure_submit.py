"""How fast are tasks accepted, beside the bare framework? Only the API runs: nothing relays and nothing executes.

(a) and (b) alternate, so that a noisy minute hits both; (c) follows on the same tables.
"""

import asyncio
import sys

from tests.bench import profile
from tests.bench.options import Options
from tests.bench.product import Product, open_product, run_client
from tests.bench.rounds import Round, Rounds
from tests.bench.servers import Servers
from tests.bench.usage import CpuMeter
from tests.support.processes import Process

CONNECTIONS = 64
BATCH_CONNECTIONS = 4


async def measure(servers: Servers, options: Options) -> dict[str, Rounds]:
    """Rounds of `echo`, `single` and `batch`, as far as they are wanted."""
    rounds: dict[str, list[Round]] = {}
    echo = _start_echo(servers)
    try:
        async with open_product(servers) as product:
            product.start("api")
            for kind in ("echo", "single", "batch"):
                if options.wants(kind):
                    await _round(servers, options, product, echo, kind, options.warm_up)
            for _ in range(options.repeats):
                for kind, count in (("echo", options.requests), ("single", options.requests)):
                    if options.wants(kind):
                        rounds.setdefault(kind, []).append(await _round(servers, options, product, echo, kind, count))
            for _ in range(options.repeats if options.wants("batch") else 0):
                batch = await _round(servers, options, product, echo, "batch", options.tasks * 5)
                rounds.setdefault("batch", []).append(batch)
    finally:
        echo.kill()
    return {kind: Rounds(done) for kind, done in rounds.items()}


def _start_echo(servers: Servers) -> Process:
    port = servers.run.free_port()
    command = [sys.executable, "-m", "tests.bench.echo_app", str(port)]
    return servers.processes.run(command, name="echo", port=port)


async def _round(servers: Servers, options: Options, product: Product, echo: Process, kind: str, count: int) -> Round:
    target = echo.port if kind == "echo" else product.port
    pids = {"echo": echo.pid} if kind == "echo" else product.pids()
    before = await product.last_id()
    await _listening(target or 0)
    connections = BATCH_CONNECTIONS if kind == "batch" else CONNECTIONS
    with profile.sampled(
        options.profile, f"submit {kind}", {"echo": echo.pid} if kind == "echo" else product.own_pids()
    ):
        meter = CpuMeter(pids)
        answer = await run_client(servers, "tests.bench.load", target, kind, count, connections)
    cpu = meter.read()
    if kind != "echo" and (stored := await product.last_id() - before) != count:
        raise ValueError(f"{count} tasks were accepted and {stored} are stored")
    return Round(
        count, answer["ended_at"] - answer["started_at"], cpu, answer["cpu_seconds"], answer["request_seconds"]
    )


async def _listening(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
