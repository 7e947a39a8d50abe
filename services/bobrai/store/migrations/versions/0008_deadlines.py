"""Until when a task must have ended."""

from bobrai.store.migrations.plain_sql import run

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Keep deadlines of tasks and types."""
    run(__file__)
