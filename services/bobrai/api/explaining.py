"""Why a task is where it is: the first of the causes that keep it from the next step, in words and as facts.

In: a task's row with its surroundings (``store.tasks.explain``), and the living workers. Out: an Explanation. Nothing
is asked of RabbitMQ, which the API does not know: what is published and not claimed waits there, or was lost, which the
dispatcher finds.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from bobrai.api.limits_view import limits_view
from bobrai.api.views import Moment
from bobrai.domain.access import Principal, Scope
from bobrai.store.pool import Record
from bobrai.store.workers import LiveWorker

MOST_AHEAD: Final = 10_000  # tasks that are counted; there may be more
_STALE_SECONDS: Final = 15.0  # without a measurement: no dispatcher works, or none reaches the database
_LATE_SECONDS: Final = 5.0  # due for so long and not published

CAUSES: Final = (
    "done", "failed", "cancelled", "running", "cancelling", "lost", "delayed", "between_attempts", "paused_queue",
    "no_worker_for_queue", "no_worker_for_type", "held_by_limit", "no_dispatcher", "backlog", "published",
)  # fmt: skip


class Explanation(msgspec.Struct):
    """Why a task is where it is."""

    task_id: int
    status: str
    cause: Annotated[str, Meta(description=f"One of {', '.join(CAUSES)}.")]
    summary: Annotated[str, Meta(description="The same for people, with what to do where something can be done.")]
    earliest_start_at: Annotated[
        Moment | None,
        Meta(description="When its next attempt may start; null: not known, or there is none."),
    ]
    facts: Annotated[
        dict[str, Any], Meta(description="What the cause is told from; members differ from cause to cause.")
    ]


def explain(row: Record, workers: Sequence[LiveWorker], principal: Principal) -> Explanation:
    """Return why a task is where it is, without what is outside of the principal's grant."""
    cause, summary, facts = _why(row, workers, principal)
    start = row["run_at"] if cause in {"delayed", "between_attempts"} else None
    common = {
        name: row[name] for name in ("attempt", "max_attempts", "losses", "deadline_at", "expires_at") if row[name]
    }
    return Explanation(row["id"], row["status"], cause, summary, start, {**common, **facts})


def _why(row: Record, workers: Sequence[LiveWorker], principal: Principal) -> tuple[str, str, dict[str, Any]]:
    if row["finished_at"] is not None:
        return _ended(row, principal)
    if row["status"] == "processing":
        return _running(row)
    if row["is_early"]:
        return _early(row, principal)
    return _kept(row, workers) or _waiting(row, principal)


def _ended(row: Record, principal: Principal) -> tuple[str, str, dict[str, Any]]:
    status = row["status"]
    facts = {"finished_at": row["finished_at"], **_last_error(row, principal)}
    why = f": {facts['last_error']}" if status != "done" and "last_error" in facts else ""
    more = "" if status == "done" else "; replay it to run it again"
    return status, f"It has ended {status}{why}{more}.", facts


def _running(row: Record) -> tuple[str, str, dict[str, Any]]:
    facts = {"started_at": row["started_at"], "timeout_seconds": row["timeout_seconds"]}
    if row["lacks_worker"]:
        return "lost", "The worker that ran it is gone; a dispatcher takes it back, and it runs again.", facts
    facts |= {"worker_id": row["worker_id"], "worker": row["worker_host"]}
    where = f"attempt {row['attempt']} runs on {row['worker_host']} (worker {row['worker_id']})"
    if row["cancel_requested"]:
        return "cancelling", f"It was cancelled while {where}, which is asked to stop.", facts
    return "running", f"Its {where}, and may take {row['timeout_seconds']:g} s.", facts


def _early(row: Record, principal: Principal) -> tuple[str, str, dict[str, Any]]:
    facts = {"run_at": row["run_at"], **_last_error(row, principal)}
    at = f"{row['run_at']:%Y-%m-%d %H:%M:%S} UTC"
    if row["failures"] or row["snoozes"] or row["losses"]:
        why = f" ({facts['last_error']})" if "last_error" in facts else ""
        return (
            "between_attempts",
            f"Attempt {row['attempt']} has not succeeded{why}; the next may start at {at}.",
            facts,
        )
    return "delayed", f"It is to start at {at}, not before.", facts


def _kept(row: Record, workers: Sequence[LiveWorker]) -> tuple[str, str, dict[str, Any]] | None:
    queue, type_ = row["queue"], row["type"]
    if row["is_paused"]:
        return "paused_queue", f"The queue {queue!r} is paused: resume it.", {"queue": queue}
    consuming = [worker for worker in workers if queue in worker.queues]
    if not consuming:
        said = f"No living worker consumes the queue {queue!r}: start one that has it in BOBRAI_WORKER_QUEUES."
        return "no_worker_for_queue", said, {"queue": queue, "workers": len(workers)}
    if not any(worker.may_have(type_) for worker in consuming):
        said = f"No living worker of the queue {queue!r} has the type {type_!r}: start one whose handlers declare it."
        return "no_worker_for_type", said, {"queue": queue, "type": type_, "workers": len(consuming)}
    return None


def _waiting(row: Record, principal: Principal) -> tuple[str, str, dict[str, Any]]:
    queue, grant = row["queue"], principal.grant
    facts: dict[str, Any] = {"queue": queue, "due_for_seconds": round(row["due_for_seconds"], 3)}
    if row["is_held"]:
        whole = grant.has_whole_queues and grant.has_whole_types
        for name in ("queue_limits", "type_limits"):
            if (limits := limits_view(row[name], whole=whole)) is not None:
                facts[name] = limits
        return "held_by_limit", f"A limit of the queue {queue!r} or of the type {row['type']!r} holds it back.", facts
    age = row["measured_age_seconds"]
    if row["has_hint"] and row["due_for_seconds"] > _LATE_SECONDS and (age is None or age > _STALE_SECONDS):
        return (
            "no_dispatcher",
            "It is due, and no dispatcher works: start one, or see why none reaches PostgreSQL.",
            facts,
        )
    if row["has_hint"]:
        if not grant.has_whole_queues:
            return "backlog", f"It waits in the backlog of the queue {queue!r}.", facts
        facts["ahead"] = row["ahead"]
        most = "over " if row["ahead"] == MOST_AHEAD else ""
        return "backlog", f"It waits in the backlog of the queue {queue!r} behind {most}{row['ahead']} tasks.", facts
    said = f"It is handed to RabbitMQ and waits for a free slot of a worker that consumes the queue {queue!r}."
    return "published", said, facts


def _last_error(row: Record, principal: Principal) -> dict[str, Any]:
    if row["last_error"] is None:
        return {}
    error = msgspec.json.decode(row["last_error"])
    whole = principal.may(Scope.TASKS_READ) and principal.may(Scope.TASKS_PAYLOAD)
    said = f"{error['type']}: {error['message']}" if whole else f"{error['type']}, {error['reason']}"
    return {"last_error": said, "reason": error["reason"]}
