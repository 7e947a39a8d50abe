"""Queues that can be kept and removed, and what types each worker has."""

from bobrai.store.migrations.plain_sql import run

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Note what is asked for by name, what is gone, and when each was last used."""
    run(__file__)
