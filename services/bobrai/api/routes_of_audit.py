"""The operation of the audit, for the table in ``routes``."""

from bobrai.api import schemas
from bobrai.api.audit_routes import AuditRoutes
from bobrai.api.audit_view import AuditPage
from bobrai.api.operations import STORED, Operation, Success
from bobrai.domain.access import Scope


def of_audit(audit: AuditRoutes) -> list[Operation]:
    """Return it."""
    return [
        Operation(
            id="listAudit",
            method="GET",
            paths=("/api/v1/audit",),
            handler=audit.list_page,
            scope=Scope.ADMIN,
            tag="Audit",
            summary="List who changed what, newest first",
            description="Cancels and replays of tasks, changes of queues, and keys made, rotated and revoked, each "
            "written with the change itself. Follow `next_cursor` until it is null.",
            query=schemas.AuditQuery,
            successes={200: Success("A page.", AuditPage)},
            problems=("invalid", *STORED),
        )
    ]
