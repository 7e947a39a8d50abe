"""Runs the SQL file that lies beside a revision, statement by statement in the revision's transaction."""

from pathlib import Path

from alembic import op


def run(revision_file: str) -> None:
    """Execute ``0001_title.sql`` for ``0001_title.py``."""
    script = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    lines = (line.split("--")[0] for line in script.splitlines())
    for statement in "\n".join(lines).split(";"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)
