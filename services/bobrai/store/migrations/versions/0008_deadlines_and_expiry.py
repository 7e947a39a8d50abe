"""Until when a task must have ended, and until when it must have started."""

from bobrai.store.migrations.plain_sql import run

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Keep deadlines of tasks and types, and when tasks expire."""
    run(__file__)
