"""Tasks of which there is one at a time."""

from bobrai.store.migrations.plain_sql import run

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Keep which tasks are the only ones of their kind, and which types want that."""
    run(__file__)
