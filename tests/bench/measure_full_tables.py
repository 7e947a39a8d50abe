"""Does cost stay flat? The end-to-end rounds again, with a million finished and a million delayed tasks in the tables.

The rows are made by SQL with the values that the product itself would write; VACUUM (ANALYZE) then puts the tables into
the state in which autovacuum keeps them.
"""

from tests.bench import measure_end_to_end
from tests.bench.options import Options
from tests.bench.product import Product
from tests.bench.rounds import Rounds


async def measure(product: Product, options: Options) -> dict[str, Rounds]:
    """Fill the tables, then rounds of `batch` and `single`."""
    await _fill(product, options.full_rows)
    return {kind: await measure_end_to_end.measure(product, options, kind) for kind in ("batch", "single")}


async def _fill(product: Product, rows: int) -> None:
    await product.connection.execute(_FINISHED, rows, timeout=600)
    await product.connection.execute(_DELAYED, rows, timeout=600)
    await product.settle_servers()


_FINISHED = """
INSERT INTO tasks (type, queue, payload, status, attempt, max_attempts, retry, timeout_seconds, worker_id, result,
                   created_at, updated_at, run_at, started_at, finished_at)
SELECT 'echo', 'default', payload, 'done', 1, 3, '{}', 300, 1, payload, at, at, at, at, at
FROM generate_series(1, $1::integer) AS n,
     LATERAL (SELECT json_build_object('n', n, 'text', 'to be echoed') AS payload,
                     now() - make_interval(secs => n * 0.1) AS at) AS made
"""

_DELAYED = """
WITH made AS (
    INSERT INTO tasks (type, queue, payload, max_attempts, retry, timeout_seconds, run_at)
    SELECT 'echo', 'default', json_build_object('n', n, 'text', 'to be echoed'), 3, '{}', 300,
           now() + interval '1 day' + make_interval(secs => n * 0.1)
    FROM generate_series(1, $1::integer) AS n
    RETURNING id, queue, priority, run_at
)
INSERT INTO outbox (task_id, attempt, queue, priority, due_at) SELECT id, 0, queue, priority, run_at FROM made
"""
