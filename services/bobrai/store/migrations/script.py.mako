"""${message}."""

from bobrai.store.migrations.plain_sql import run

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Expand the schema; code of the release before must run on it."""
    run(__file__)
