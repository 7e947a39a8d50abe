"""Task types as workers announce them, so that the API can check a payload before any row exists."""

from collections.abc import Sequence

from bobrai.domain.task import TaskType
from bobrai.store.pool import Executor
from bobrai.store.queries import statement
from bobrai.store.records import retry_text, retry_value

_ANNOUNCE = statement("announce_types")
_ALL = statement("task_types")


async def announce(database: Executor, types: Sequence[TaskType]) -> None:
    """Store what these types are; the latest announcement of a name counts."""
    ordered = sorted(types, key=lambda kind: kind.name)
    await database.fetch(
        _ANNOUNCE,
        [kind.name for kind in ordered],
        [kind.queue for kind in ordered],
        [kind.description for kind in ordered],
        [kind.payload_schema for kind in ordered],
        [kind.result_schema for kind in ordered],
        [retry_text(kind.retry) for kind in ordered],
        [kind.timeout_seconds for kind in ordered],
    )


async def every(database: Executor) -> list[TaskType]:
    """Return every announced type, by name."""
    return [
        TaskType(
            name=row["name"],
            queue=row["queue"],
            description=row["description"],
            payload_schema=row["payload_schema"],
            result_schema=row["result_schema"],
            retry=retry_value(row["retry"]),
            timeout_seconds=row["timeout_seconds"],
        )
        for row in await database.fetch(_ALL)
    ]
