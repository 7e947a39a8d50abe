"""Who changed what: rows that each change writes in its own transaction, read in pages and pruned after a retention.

In: authors, from whoever asks for a change. Out: records, and one line in the log for each row. The rows of a change
are written in its statement (``tasks.sql``, ``queues.sql``, ``task_types.sql``, ``keys.sql``): none without the other.
"""

from dataclasses import dataclass
from datetime import datetime

from bobrai.domain.audit import Action, Author
from bobrai.store.pool import Executor, Record, Transactional
from bobrai.store.queries import statement
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_LIST = statement("list_audit")
_PRUNE = statement("prune_audit")
_RECORD_PURGE = statement("record_purge")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which rows to list; None means any."""

    actor: str | None = None
    action: Action | None = None
    target: str | None = None
    after: datetime | None = None
    before: datetime | None = None


async def page(database: Transactional, wanted: AuditFilter, *, before_id: int | None, limit: int) -> list[Record]:
    """Return up to ``limit`` rows with ids below ``before_id``, newest first; ``before`` and ``after`` are JSON."""
    async with database.transaction() as connection:
        # A plan made for all filters at once could use no index by one of them.
        await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        return await connection.fetch(
            _LIST, before_id, wanted.actor, wanted.action, wanted.target, wanted.after, wanted.before, limit
        )


async def prune(database: Executor, *, retention_seconds: float, limit: int) -> int:
    """Delete rows older than the retention time, at most ``limit``; returns how many."""
    return len(await database.fetch(_PRUNE, retention_seconds, limit))


async def record_purge(
    transaction: Executor, row_id: int | None, queue: str, *, cancelled: int, asked_to_stop: int, by: Author
) -> int:
    """Write how far the purge of a queue has come, in the transaction of its latest step; returns the row's id."""
    rows = await transaction.fetch(_RECORD_PURGE, row_id, cancelled, asked_to_stop, *by, queue)
    found: int = rows[0]["id"]
    return found


def tell(row_id: int | None, action: str, target: str, by: Author) -> None:
    """Say in the log that a change was recorded, once it is committed; None: nothing was changed."""
    if row_id is not None:
        log.info("audit.recorded", audit_id=row_id, action=action, target=target, actor=by.actor)
