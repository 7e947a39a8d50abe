"""Taskiq's application: taskiq-aio-pika on a quorum queue, results in PostgreSQL by taskiq-postgres on asyncpg.

Runs under the peer's Python: `taskiq worker tests.bench.peers.taskiq_app:broker`. The delay queue is left out: it takes
no part in an immediate task.
"""

import os
from typing import Any

from taskiq.serializers import JSONSerializer
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType
from taskiq_pg.asyncpg import AsyncpgResultBackend

QUEUE = os.environ["PEER_QUEUE"]

results: AsyncpgResultBackend = AsyncpgResultBackend(
    dsn=os.environ["PEER_DATABASE_URL"],
    table_name="results",
    serializer=JSONSerializer(),
    min_size=int(os.environ.get("PEER_POOL_SIZE", "10")),
    max_size=int(os.environ.get("PEER_POOL_SIZE", "10")),
)
broker = AioPikaBroker(
    os.environ["PEER_RABBITMQ_URL"],
    qos=int(os.environ.get("PEER_PREFETCH", "100")),
    exchange=Exchange(name=QUEUE),
    task_queues=[Queue(name=QUEUE, type=QueueType.QUORUM)],
    dead_letter_queue=Queue(name=f"{QUEUE}.dead", type=QueueType.QUORUM),
).with_result_backend(results)


@broker.task
async def echo(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the payload."""
    return payload
