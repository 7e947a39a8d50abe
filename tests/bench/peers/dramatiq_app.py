"""Dramatiq's application: its RabbitMQ broker on a quorum queue, results in PostgreSQL by the least code that works.

Dramatiq ships no PostgreSQL result backend; this one does one INSERT per result on a connection per thread, which is
the least that a durable result can cost there. Runs under the peer's Python: `dramatiq tests.bench.peers.dramatiq_app`.
"""

import os
import threading
from typing import Any

import dramatiq
import psycopg
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backend import Missing, ResultBackend

QUEUE = os.environ["PEER_QUEUE"]
# without it, Dramatiq's default, a message that RabbitMQ never stored is lost unnoticed
CONFIRMED = os.environ["PEER_CONFIRMED"] == "yes"


class PostgresResults(ResultBackend):
    """Stores each result as a row."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._local = threading.local()

    def connection(self) -> psycopg.Connection[Any]:
        """This thread's connection; every statement commits by itself."""
        if not hasattr(self._local, "connection"):
            self._local.connection = psycopg.connect(self._url, autocommit=True, prepare_threshold=1)
        return self._local.connection

    def _store(self, message_key: str, result: Any, ttl: int) -> None:
        self.connection().execute(
            "INSERT INTO results VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET result = excluded.result",
            (message_key, self.encoder.encode(result).decode()),
        )

    def _get(self, message_key: str) -> Any:
        row = self.connection().execute("SELECT result FROM results WHERE key = %s", (message_key,)).fetchone()
        return Missing if row is None else self.encoder.decode(row[0].encode())


class QuorumBroker(RabbitmqBroker):
    """Dramatiq's broker, whose queues RabbitMQ replicates."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": "quorum"}


results = PostgresResults(os.environ["PEER_DATABASE_URL"])
broker = QuorumBroker(url=os.environ["PEER_RABBITMQ_URL"], confirm_delivery=CONFIRMED)
broker.add_middleware(Results(backend=results))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE, store_results=True)
def echo(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the payload."""
    return payload
