"""The operations of tasks, for the table in ``routes``."""

from typing import Final

from bobrai.api import explaining, schemas, views
from bobrai.api.operations import BODY, STORED, Operation, Success
from bobrai.api.task_routes import FIRST_PATH, TaskRoutes
from bobrai.domain import limits
from bobrai.domain.access import Scope

_TASKS: Final = "/api/v1/tasks"
_SUBMIT: Final = (
    *BODY,
    "bad-header",
    "outside-grant",
    "idempotency-mismatch",
    "too-many-waiting",
    "queue-full",
    *STORED,
)
_REPLAYED: Final = {"Idempotency-Replayed": "`true` when this is the first answer, given again."}
_LOCATION: Final = {"Location": "Path of the task."}
_SEEN: Final = Success("The task.", views.TaskView)


def of_tasks(tasks: TaskRoutes) -> list[Operation]:
    """Return them, those asked most often first."""
    return [*_of_one(tasks), *_of_many(tasks), *_changing(tasks), *_explaining(tasks)]


def _of_one(tasks: TaskRoutes) -> list[Operation]:
    return [
        Operation(
            id="submitTask",
            method="POST",
            paths=(_TASKS, FIRST_PATH),
            handler=tasks.submit,
            scope=Scope.TASKS_SUBMIT,
            tag="Tasks",
            summary="Submit a task",
            description="201 means that the task is committed and will end. With an `Idempotency-Key`, the same "
            "request may be repeated at will: it is stored once, and the first answer is given again.",
            body=schemas.TaskSubmission,
            body_limit=limits.MAX_BODY_BYTES,
            body_example={"payload": "test task"},
            headers=("Idempotency-Key", "traceparent"),
            successes={
                201: Success("Accepted and committed.", views.TaskCreated, headers={**_LOCATION, **_REPLAYED}),
                200: Success(
                    "There is one of its kind already, as `unique` says, and this is it.",
                    views.TaskFound,
                    headers={**_LOCATION, **_REPLAYED},
                ),
            },
            problems=_SUBMIT,
        ),
        Operation(
            id="readTask",
            method="GET",
            paths=(_TASKS + "/{task_id}", "/tasks/{task_id}"),
            handler=tasks.read,
            scope=Scope.TASKS_READ,
            tag="Tasks",
            summary="Read a task",
            description="With `wait`, the answer is held until the task is final or the time is up; either way it is "
            "the task as it is then.",
            query=schemas.TaskQuery,
            headers=("If-None-Match",),
            successes={
                200: Success("The task as it is now.", views.TaskView, headers={"ETag": "Changes with the task."}),
                304: Success("The task is as If-None-Match says.", content_type="", headers={"ETag": "Unchanged."}),
            },
            problems=("task-not-found", "invalid", *STORED),
        ),
    ]


def _explaining(tasks: TaskRoutes) -> list[Operation]:
    return [
        Operation(
            id="explainTask",
            method="GET",
            paths=(_TASKS + "/{task_id}/explain",),
            handler=tasks.explain,
            scope=Scope.TASKS_READ,
            tag="Tasks",
            summary="Explain why a task is where it is",
            description="Names the first cause that keeps it from its next step, and the earliest start where that is "
            "known.",
            successes={200: Success("The cause.", explaining.Explanation)},
            problems=("task-not-found", "invalid", *STORED),
        ),
    ]


def _of_many(tasks: TaskRoutes) -> list[Operation]:
    return [
        Operation(
            id="submitTasks",
            method="POST",
            paths=(_TASKS + "/batch",),
            handler=tasks.submit_batch,
            scope=Scope.TASKS_SUBMIT,
            tag="Tasks",
            summary="Submit many tasks, all or none",
            description=f"1 to {limits.MAX_BATCH_TASKS} tasks in one commit. If one of them is wrong, none is stored, "
            "and `errors` names each place that is wrong.",
            body=schemas.TaskBatch,
            body_limit=limits.MAX_BATCH_BODY_BYTES,
            body_example={"tasks": [{"payload": "one"}, {"payload": "two", "priority": 5}]},
            headers=("Idempotency-Key", "traceparent"),
            successes={
                201: Success("All accepted and committed.", views.BatchCreated, headers=_REPLAYED),
                200: Success("Each was there already, as `unique` says.", views.BatchCreated, headers=_REPLAYED),
            },
            problems=_SUBMIT,
        ),
        Operation(
            id="listTasks",
            method="GET",
            paths=(_TASKS,),
            handler=tasks.list_page,
            scope=Scope.TASKS_READ,
            tag="Tasks",
            summary="List tasks, newest first",
            description="Follow `next_cursor` until it is null: no task is skipped or repeated, whatever "
            "arrives meanwhile.",
            query=schemas.TaskListQuery,
            successes={200: Success("A page.", views.TaskPage)},
            problems=("invalid", *STORED),
        ),
    ]


def _changing(tasks: TaskRoutes) -> list[Operation]:
    return [
        Operation(
            id="cancelTask",
            method="POST",
            paths=(_TASKS + "/{task_id}/cancel",),
            handler=tasks.cancel,
            scope=Scope.TASKS_CONTROL,
            tag="Tasks",
            summary="Cancel a task",
            description="A pending task is cancelled at once; a running one is asked to stop, and becomes `cancelled` "
            "when its worker has stopped it. Repeating it changes nothing.",
            successes={200: _SEEN},
            problems=("task-not-found", "wrong-status", "invalid", *STORED),
        ),
        Operation(
            id="replayTask",
            method="POST",
            paths=(_TASKS + "/{task_id}/replay",),
            handler=tasks.replay,
            scope=Scope.TASKS_CONTROL,
            tag="Tasks",
            summary="Run a final task again",
            description="Gives a task that is done, failed or cancelled a fresh set of attempts. Its errors are kept.",
            successes={200: _SEEN},
            problems=("task-not-found", "wrong-status", "too-many-waiting", "invalid", *STORED),
        ),
    ]
