"""How fast does a task go from submit to stored result, and what does it cost in which process?

One API, one dispatcher and one worker process, RabbitMQ and PostgreSQL, all with default settings. A round lasts from
the first byte of the first submit until no task is left, looked at every 20 ms; then every result is checked.
"""

from tests.bench import profile
from tests.bench.measure_submit import BATCH_CONNECTIONS, CONNECTIONS
from tests.bench.options import Options
from tests.bench.product import Product, run_client
from tests.bench.rounds import Round, Rounds
from tests.bench.usage import CpuMeter


async def measure(product: Product, options: Options, kind: str) -> Rounds:
    """Rounds with tasks submitted by `kind`: single or batch."""
    with profile.sampled(options.profile, f"end to end {kind}", product.own_pids()):
        return Rounds([await one_round(product, kind, options.tasks) for _ in range(options.repeats)])


async def one_round(product: Product, kind: str, count: int) -> Round:
    """Submit, wait for the last result, check all of them."""
    await product.settle_servers()
    before = await product.last_id()
    meter = CpuMeter(product.pids())
    connections = BATCH_CONNECTIONS if kind == "batch" else CONNECTIONS
    answer = await run_client(product.servers, "tests.bench.load", product.port, kind, count, connections)
    ended_at = await product.wait_settled()
    cpu = meter.read()
    await product.verify(before, count)
    return Round(count, ended_at - answer["started_at"], cpu, answer["cpu_seconds"], answer["request_seconds"])
