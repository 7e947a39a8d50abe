"""Where a type's handler runs, and how much memory it may take there, as workers announce it."""

from bobrai.store.migrations.plain_sql import run

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Keep what is announced."""
    run(__file__)
