"""The handler of /audit: who changed what, for administrators.

In: a Request with filters. Out: a page of rows that the changes have written themselves (``store.audit``).
"""

from typing import Final

from bobrai.api import audit_view, cursor, problems, schemas, views
from bobrai.api.problems import Fault
from bobrai.api.web import Reply, Request
from bobrai.store import audit
from bobrai.store.pool import Transactional

_PRIVATE: Final = ((b"cache-control", b"no-store"),)


class AuditRoutes:
    """Reads the audit."""

    def __init__(self, database: Transactional) -> None:
        self._database = database

    async def list_page(self, request: Request) -> Reply:
        """Return a page of changes, newest first."""
        asked = schemas.query(schemas.AuditQuery, request.query_string)
        wanted = audit.AuditFilter(
            actor=asked.actor, action=asked.action, target=asked.target, after=asked.after, before=asked.before
        )
        _refuse_nul(wanted)
        before_id = None if asked.cursor is None else cursor.decode(asked.cursor)
        rows = await audit.page(self._database, wanted, before_id=before_id, limit=asked.limit + 1)
        shown = rows[: asked.limit]
        following = cursor.encode(shown[-1]["id"]) if len(rows) > len(shown) else None
        page = audit_view.AuditPage([audit_view.entry(row) for row in shown], following)
        return Reply(views.encode(page), headers=_PRIVATE)


def _refuse_nul(wanted: audit.AuditFilter) -> None:
    """Raise a 422 problem for a text that PostgreSQL could not hold, and so has nowhere."""
    named = (("actor", wanted.actor), ("target", wanted.target))
    if faults := [Fault(f"/query/{name}", "must not have a NUL") for name, text in named if text and "\x00" in text]:
        raise problems.invalid(faults)
