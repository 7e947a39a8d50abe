"""Tasks for people: what a list shows of each, and all of one.

In: tasks as the client gives them. Out: cells and lines.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bobrai.cli.asking import NOTHING, json_of, moment, number
from bobrai.cli.tables import Column

if TYPE_CHECKING:
    from bobrai.client.models import AttemptFailure, Task


def outcome(task: "Task") -> str:
    """Return what has become of a task, or how far it is, in one text."""
    if task.status == "done":
        return json_of(task.result)
    if task.status in {"failed", "cancelled"}:
        return failure(task.errors[-1]) if task.errors else task.error or NOTHING
    return NOTHING if task.progress is None else json_of(task.progress)


def failure(error: "AttemptFailure") -> str:
    """Return how an attempt failed."""
    return f"{error.type}: {error.message}" if error.message else f"{error.type} ({error.reason})"


COLUMNS: Final[list[tuple[Column, Callable[["Task"], str]]]] = [
    (Column("ID", is_number=True), lambda task: str(task.id)),
    (Column("TYPE"), lambda task: task.type),
    (Column("QUEUE"), lambda task: task.queue),
    (Column("STATUS", is_whole=True), lambda task: task.status),
    (Column("ATTEMPTS", is_number=True), lambda task: f"{task.attempt}/{task.max_attempts}"),
    (Column("CREATED", is_whole=True), lambda task: moment(task.created_at)),
    (Column("OUTCOME"), outcome),
]


def described(task: "Task") -> list[tuple[str, str]]:
    """Return the members of one task; what it has not is left out."""
    members = [
        ("id", str(task.id)),
        ("type", task.type),
        ("queue", task.queue),
        ("status", task.status),
        ("payload", json_of(task.payload, indent=2)),
        ("result", json_of(task.result, indent=2) if task.status == "done" else ""),
        ("progress", "" if task.progress is None else json_of(task.progress, indent=2)),
        ("errors", "\n".join(f"attempt {each.attempt}: {failure(each)}" for each in task.errors)),
        ("attempts", f"{task.attempt} of {task.max_attempts}"),
        ("losses", number(task.losses) if task.losses else ""),
        ("snoozes", number(task.snoozes) if task.snoozes else ""),
        ("priority", str(task.priority)),
        ("parent", number(task.parent_id)),
        ("created", moment(task.created_at)),
        ("due", moment(task.run_at)),
        ("started", moment(task.started_at)),
        ("finished", moment(task.finished_at)),
        ("deadline", moment(task.deadline_at)),
        ("expires", moment(task.expires_at)),
    ]
    return [(name, value) for name, value in members if value and value != NOTHING]
