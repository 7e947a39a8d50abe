"""What an administrator sees of the changes that people made: rows of ``audit`` as JSON.

In: records of ``store.audit``. Out: views for ``audit_routes`` and the command line.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from bobrai.api.views import Moment
from bobrai.domain.audit import Action
from bobrai.store.pool import Record

_WORDS: Final = "such as `task:17`, `queue:mail`, `key:k7x2m9q4w1ab`"


class AuditEntry(msgspec.Struct, kw_only=True):
    """One change: who made it, what it was made to, and how that was before and after."""

    id: int
    at: Moment
    actor: Annotated[str, Meta(description="A principal's id, `anonymous`, or `cli:` and the user of a command.")]
    actor_name: Annotated[str, Meta(description="For people: the name of a key as it was then.")]
    action: Action
    target: Annotated[str, Meta(description=f"What was changed, {_WORDS}.")]
    source: Annotated[str, Meta(description="The address that asked; empty for a command.")]
    request_id: Annotated[str, Meta(description="As in the answer and in the log; empty for a command.")]
    before: Annotated[
        dict[str, Any] | None, Meta(description="What was changed, as it was; null: it was not there, or has no state.")
    ]
    after: Annotated[dict[str, Any] | None, Meta(description="The same afterwards; null: it is gone.")]


class AuditPage(msgspec.Struct):
    """Changes, newest first."""

    entries: list[AuditEntry]
    next_cursor: Annotated[str | None, Meta(description="Give it as `cursor` for the next page; null on the last.")]


def entry(row: Record) -> AuditEntry:
    """Return a row as its view."""
    return AuditEntry(**{**row, "before": _decoded(row["before"]), "after": _decoded(row["after"])})


def _decoded(text: str | None) -> dict[str, Any] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, Any])
