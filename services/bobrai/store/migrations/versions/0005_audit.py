"""Who changed what, from where, and how it was before."""

from bobrai.store.migrations.plain_sql import run

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Keep a row for every change that somebody wished."""
    run(__file__)
