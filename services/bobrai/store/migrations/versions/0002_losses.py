"""How often a task was lost with the worker that ran it."""

from bobrai.store.migrations.plain_sql import run

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Count losses beside attempts."""
    run(__file__)
