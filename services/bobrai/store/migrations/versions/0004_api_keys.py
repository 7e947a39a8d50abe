"""API keys: who may do what."""

from bobrai.store.migrations.plain_sql import run

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Keep keys by the hash of their secret."""
    run(__file__)
