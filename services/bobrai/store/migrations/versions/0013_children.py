"""Tasks that other tasks have submitted."""

from bobrai.store.migrations.plain_sql import run

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Keep which task has submitted another."""
    run(__file__)
