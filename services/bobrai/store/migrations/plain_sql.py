"""Runs the SQL file that lies beside a revision, statement by statement in the revision's transaction."""

import re
from pathlib import Path
from typing import Final

from alembic import op

_STATEMENT: Final = re.compile(r"(?:\$\$.*?\$\$|[^;])+", re.DOTALL)  # a function's body holds statements of its own


def run(revision_file: str) -> None:
    """Execute ``0001_title.sql`` for ``0001_title.py``; ``@schema@`` in it is the schema that is migrated, quoted."""
    script = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    script = script.replace("@schema@", schema)
    lines = (line.split("--")[0] for line in script.splitlines())
    for statement in _STATEMENT.findall("\n".join(lines)):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)
