"""Tasks, outbox, workers, queues, task types, idempotency keys."""

from bobrai.store.migrations.plain_sql import run

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first schema."""
    run(__file__)
