"""API keys: who may do what, and how much of it."""

from bobrai.store.migrations.plain_sql import run

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Keep keys by the hash of their secret, and know among whom rates are divided."""
    run(__file__)
