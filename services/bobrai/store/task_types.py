"""Task types as workers announce them, so that the API can check a payload before any row exists.

A type stays known when its last worker ends, because a pool may scale to zero; it is forgotten after a long retention.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from bobrai.domain.audit import Action, Author
from bobrai.domain.limiting import Limits
from bobrai.domain.task import TaskType
from bobrai.store import audit
from bobrai.store.pool import Database, Executor, Record, column
from bobrai.store.queries import statement
from bobrai.store.records import limits_text, limits_value, retry_text, retry_value, unique_text, unique_value
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_ANNOUNCE = statement("announce_types")
_ALL = statement("task_types")
_SET_LIMITS = statement("set_type_limits")
_TOUCH = statement("touch_types")
_FORGET = statement("forget_types")

_LOOK_TIMEOUT_SECONDS = 30.0  # enough for many millions that wait


_unreadable: set[str] = set()  # types of which that is said already


class Announced(NamedTuple):
    """A type, when a worker last announced it, and its limits in force, as JSON text; None: it has none."""

    type: TaskType
    announced_at: datetime
    limits: str | None
    limits_set: bool  # by a person: what is declared does not count


async def announce(database: Executor, types: Sequence[TaskType]) -> None:
    """Store what these types are; the latest announcement of a name counts, save for limits that a person has set."""
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
        [kind.deadline_seconds for kind in ordered],
        [None if kind.unique is None else unique_text(kind.unique) for kind in ordered],
        [limits_text(kind.limits) for kind in ordered],
        [kind.runs_in for kind in ordered],
        [kind.memory_mb for kind in ordered],
    )


async def announced(database: Executor) -> list[Announced]:
    """Return every announced type with the moment of its announcement, by name.

    One that cannot be read, as what another release has announced, is logged and left out: it is in nobody's way.
    """
    found = []
    for row in await database.fetch(_ALL):
        try:
            found.append(Announced(_value(row), row["announced_at"], row["limits"], row["limits_set"]))
        except msgspec.DecodeError as error:
            if row["name"] not in _unreadable:
                _unreadable.add(row["name"])
                log.error("types.unreadable", type=row["name"], error=str(error))  # noqa: TRY400 - it says all
    return found


def _value(row: Record) -> TaskType:
    return TaskType(
        name=row["name"],
        queue=row["queue"],
        description=row["description"],
        payload_schema=row["payload_schema"],
        result_schema=row["result_schema"],
        retry=retry_value(row["retry"]),
        timeout_seconds=row["timeout_seconds"],
        deadline_seconds=row["deadline_seconds"],
        unique=None if row["unique_rule"] is None else unique_value(row["unique_rule"]),
        limits=None if row["declared_limits"] is None else limits_value(row["declared_limits"]),
        runs_in=row["runs_in"],
        memory_mb=row["memory_mb"],
    )


async def every(database: Executor) -> list[TaskType]:
    """Return every announced type, by name."""
    return [each.type for each in await announced(database)]


async def set_limits(database: Executor, name: str, limits: Limits | None, *, by: Author) -> bool:
    """Set the limits of a type in place of the declared ones, which None brings back; returns whether the type exists.

    ``Limits()`` sets that it has none. They stay, whatever workers announce, as long as the type is known.
    """
    rows = await database.fetch(_SET_LIMITS, name, limits is not None, limits_text(limits), *by)
    if not rows:
        return False
    audit.tell(rows[0]["audit_id"], Action.TYPE_CHANGE, f"type:{name}", by)
    return True


async def touch(database: Executor) -> None:
    """Note which types living workers have."""
    await database.fetch(_TOUCH)


async def forget(database: Database, *, retention_seconds: float) -> list[str]:
    """Forget the types that no worker has had for so long and that no waiting or running task names; returns them."""
    async with database.transaction() as connection:
        # Types have no index: rather look through that of what waits than through all that is done.
        await connection.execute("SET LOCAL enable_seqscan = off")
        return column(await connection.fetch(_FORGET, retention_seconds, timeout=_LOOK_TIMEOUT_SECONDS), "name")
