"""How long does a task take when the service has nothing else to do?

From the first byte of the submit to a GET that shows its result, at 50 tasks a second.
"""

from tests.bench.options import Options
from tests.bench.product import Product, run_client
from tests.bench.rounds import percentiles

RATE = 50


async def measure(product: Product, options: Options) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    await product.wait_settled()
    answer = await run_client(product.servers, "tests.bench.probe", product.port, RATE, options.idle_seconds)
    return percentiles(answer["latencies"])
