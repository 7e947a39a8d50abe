"""What does it cost where a handler runs? The same function in the event loop, in a thread and in a process.

End-to-end rounds of batch submits, in turns, so that neighbours had the same minute. What a process costs more than
the event loop is the overhead of each of its tasks; CPU counts for the worker with all its processes.
"""

from tests.bench import echo_handlers
from tests.bench.measure_submit import BATCH_CONNECTIONS
from tests.bench.options import Options
from tests.bench.product import open_product, run_client
from tests.bench.rounds import Round, Rounds
from tests.bench.servers import Servers
from tests.bench.usage import CpuMeter

PLACES = ("loop", "thread", "process")


async def measure(servers: Servers, options: Options) -> dict[str, Rounds]:
    """Rounds by place, as many of each as there are repeats."""
    count = options.tasks // 5
    rounds: dict[str, list[Round]] = {place: [] for place in PLACES}
    async with open_product(servers, {"BOBRAI_HANDLERS": echo_handlers.__name__}) as product:
        product.start("api", "dispatcher", "worker")
        for repeat in range(options.repeats + 1):
            for place in PLACES:
                await product.settle_servers()
                before = await product.last_id()
                meter = CpuMeter(product.pids())
                arguments = (product.port, f"batch:echo-{place}", count, BATCH_CONNECTIONS)
                answer = await run_client(servers, "tests.bench.load", *arguments)
                ended_at = await product.wait_settled()
                cpu = meter.read()
                await product.verify(before, count, f"echo-{place}")
                if repeat:  # the first one warms up
                    rounds[place].append(Round(count, ended_at - answer["started_at"], cpu, answer["cpu_seconds"]))
    return {f"place {place}": Rounds(done) for place, done in rounds.items()}
