"""What answers look like: one example of each, made of the same views and problems that clients get.

In: a view's class or a problem's kind. Out: JSON values for the OpenAPI document. A new view has its example here.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from bobrai.api import key_view, views, worker_view
from bobrai.api.audit_view import AuditEntry, AuditPage
from bobrai.api.explaining import Explanation
from bobrai.api.limits_view import LimitsView, PerKeyView
from bobrai.api.problems import KINDS, Fault, Problem
from bobrai.domain.audit import Action
from bobrai.domain.task import TaskStatus

REQUEST_ID: Final = "5e0c1f6f6d5b4a0f9f0e3f1f2c3d4e5f"
_ACCEPTED: Final = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
_STARTED: Final = _ACCEPTED + timedelta(milliseconds=8)
_FINISHED: Final = _STARTED + timedelta(seconds=1)

_TASK: Final = views.TaskView(
    id=1,
    type="demo",
    queue="default",
    payload="test task",
    status=TaskStatus.DONE,
    result="processed: test task (1sec)",
    error=None,
    errors=[],
    priority=0,
    attempt=1,
    max_attempts=3,
    losses=0,
    snoozes=0,
    progress=None,
    run_at=_ACCEPTED,
    deadline_at=None,
    expires_at=None,
    parent_id=None,
    created_at=_ACCEPTED,
    updated_at=_FINISHED,
    started_at=_STARTED,
    finished_at=_FINISHED,
)
_EXPLANATION: Final = Explanation(
    task_id=1,
    status="pending",
    cause="paused_queue",
    summary="The queue 'default' is paused: resume it.",
    earliest_start_at=None,
    facts={"max_attempts": 3, "queue": "default"},
)
_QUEUE: Final = views.QueueView(
    name="default",
    paused=False,
    max_backlog=None,
    limits=LimitsView(concurrency=20, rate="10/s", per_key=PerKeyView(key="/account", concurrency=3)),
    backlog=views.BacklogView(due=12, held=0, delayed=3, between_attempts=1),
    processing=50,
    oldest_due_age_seconds=0.4,
    workers=1,
    slots=50,
    measured_at=_ACCEPTED,
)
_TYPE: Final = views.TypeView(
    name="demo",
    description="Waits for a moment.",
    queue="default",
    payload_schema={"type": "string"},
    result_schema={"type": "string"},
    timeout_seconds=300.0,
    deadline_seconds=None,
    retry=views.RetryView(
        max_attempts=3, delay_seconds=1.0, factor=2.0, max_delay_seconds=300.0, jitter=0.5, retry_for_seconds=None
    ),
    unique=None,
    limits=None,
    declared_limits=None,
    limits_set=False,
    runs_in=None,
    memory_mb=None,
    announced_at=_ACCEPTED,
    workers=1,
    workers_unknown=0,
    queue_workers=1,
)
_WORKER: Final = worker_view.WorkerView(
    id=7,
    host="bobrai-worker-7c9f8d5b6-x2x9k",
    queues=["default"],
    types=["demo", "echo"],
    concurrency=50,
    running=3,
    started_at=_ACCEPTED,
)
_KEY: Final[dict[str, Any]] = {
    "id": "k7x2m9q4w1ab",
    "name": "ci",
    "scopes": ["tasks:submit", "tasks:read"],
    "queues": ["mail*"],
    "types": [],
    "own_tasks": False,
    "rate": "100/s",
    "burst": 200,
    "max_waiting": None,
    "created_at": _ACCEPTED,
    "created_by": "cli:alice",
    "rotated_at": None,
    "previous_until": None,
    "expires_at": _ACCEPTED + timedelta(days=90),
    "expired": False,
    "superseded": False,
    "revoked_at": None,
    "last_used_at": _STARTED,
}
_CHANGE: Final = AuditEntry(
    id=1,
    at=_ACCEPTED,
    actor="key:k7x2m9q4w1ab",
    actor_name="ci",
    action=Action.QUEUE_CHANGE,
    target="queue:mail",
    source="10.0.0.7",
    request_id=REQUEST_ID,
    before={"kept": True, "paused": False, "max_backlog": None, "limits": None},
    after={"kept": True, "paused": True, "max_backlog": None, "limits": None},
)
_VIEWS: Final[tuple[msgspec.Struct, ...]] = (
    views.TaskCreated(task_id=1),
    views.TaskFound(task_id=1),
    views.BatchCreated(task_ids=[1, 2]),
    _TASK,
    _EXPLANATION,
    views.TaskPage(tasks=[_TASK], next_cursor=None),
    _QUEUE,
    views.QueueList(queues=[_QUEUE]),
    _TYPE,
    views.TypeList(types=[_TYPE]),
    _WORKER,
    worker_view.WorkerList(workers=[_WORKER]),
    key_view.KeyView(**_KEY),
    key_view.KeyList(keys=[key_view.KeyView(**_KEY)]),
    key_view.KeyWithSecret(**_KEY, key="bobrai_k7x2m9q4w1ab_…"),
    _CHANGE,
    AuditPage(entries=[_CHANGE], next_cursor=None),
    views.LiveView(live=True),
    views.ReadyView(ready=True, checks={"catalog": True, "running": True}),
    views.HealthView(status="healthy", checks={"database": "healthy"}),
)
_OF_VIEWS: Final[Mapping[type, Any]] = {type(view): msgspec.json.decode(views.encode(view)) for view in _VIEWS}
# Answers without a view.
_OF_MEDIA: Final = {
    "application/json": {"openapi": "3.1.0"},
    "text/plain": 'bobrai_tasks_submitted_total{queue="default",type="demo"} 1.0\n',
    "text/html": '<!doctype html><html lang="en">…</html>',
}
_FAULTS: Final[Mapping[str, tuple[Fault, ...]]] = {"invalid": (Fault("/priority", "must be a valid integer"),)}


def of(view: type[msgspec.Struct] | None, content_type: str) -> Any:
    """Return the example of an answer, or None when it has none yet."""
    return _OF_MEDIA.get(content_type) if view is None else _OF_VIEWS.get(view)


def problem(kind: str) -> Any:
    """Return the problem that an answer of this kind carries."""
    return msgspec.json.decode(Problem(kind, KINDS[kind][2], faults=_FAULTS.get(kind, ())).body(REQUEST_ID))
