"""How long does a task take when the service has nothing else to do?

From the first byte of the submit to a GET that shows its result, at 50 tasks a second.
"""

from typing import Any

from tests.bench.options import Options
from tests.bench.product import Product, run_client
from tests.bench.rounds import percentiles

RATE = 50


async def measure(product: Product, options: Options) -> dict[str, Any]:
    """p50, p95 and p99 in milliseconds, and the medians of the stages that the rows tell of."""
    await product.wait_settled()
    before = await product.last_id()
    answer = await run_client(product.servers, "tests.bench.probe", product.port, RATE, options.idle_seconds)
    row = await product.connection.fetchrow(_STAGES, before)
    return {**percentiles(answer["latencies"]), "stages": dict(row or {})}


_STAGES = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - created_at) * 1e3)
           AS committing_to_claimed,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - started_at) * 1e3)
           AS claimed_to_completed
FROM tasks WHERE id > $1
"""
