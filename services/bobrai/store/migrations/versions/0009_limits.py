"""How many tasks of a queue, a type or a payload key may run at once, and start in a time."""

from bobrai.store.migrations.plain_sql import run

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Keep limits, what they hold back, and what they have let through."""
    run(__file__)
