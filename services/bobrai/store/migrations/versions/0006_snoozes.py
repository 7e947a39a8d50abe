"""How often a handler asked for a later start."""

from bobrai.store.migrations.plain_sql import run

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Count snoozes beside attempts."""
    run(__file__)
