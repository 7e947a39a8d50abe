"""A function that submits a task in the transaction of whoever calls it."""

from bobrai.store.migrations.plain_sql import run

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make `bobrai_submit`."""
    run(__file__)
