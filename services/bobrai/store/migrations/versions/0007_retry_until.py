"""Until when failed attempts are tried again."""

from bobrai.store.migrations.plain_sql import run

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Keep when the time for attempts is over."""
    run(__file__)
