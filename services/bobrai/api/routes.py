"""The table of all operations: what the API answers, and what its documentation says.

In: the handlers of the ``*_routes`` modules. Out: operations, from which ``app`` makes the router and ``openapi`` the
document. A new path is one entry here and one handler.
"""

from typing import Final

from bobrai.api import schemas, views
from bobrai.api.operations import Operation, Success
from bobrai.api.queue_routes import QueueRoutes
from bobrai.api.scaling_routes import ScalingRoutes, ScalingView
from bobrai.api.system_routes import SystemRoutes
from bobrai.api.task_routes import FIRST_PATH, TaskRoutes
from bobrai.api.type_routes import TypeRoutes
from bobrai.domain import limits

_TASKS: Final = "/api/v1/tasks"
_ALWAYS: Final = ("internal",)
_STORED: Final = ("unavailable", *_ALWAYS)
_BODY: Final = ("bad-json", "body-timeout", "crowded", "body-too-large", "wrong-media-type", "invalid")
_SUBMIT: Final = (*_BODY, "bad-header", "idempotency-mismatch", "queue-full", *_STORED)
_REPLAYED: Final = {"Idempotency-Replayed": "`true` when this is the first answer, given again."}


def operations(
    tasks: TaskRoutes,
    queues: QueueRoutes,
    types: TypeRoutes,
    system: SystemRoutes,
    scaling: ScalingRoutes | None = None,
) -> list[Operation]:
    """Return every operation; those asked most often come first, because the router tries them in this order."""
    return [
        *_of_tasks(tasks),
        *_of_queues(queues),
        *_of_types(types),
        *_of_system(system),
        *_of_scaling(scaling),
    ]


def _of_tasks(tasks: TaskRoutes) -> list[Operation]:
    seen = Success("The task.", views.TaskView)
    return [
        Operation(
            id="submitTask",
            method="POST",
            paths=(_TASKS, FIRST_PATH),
            handler=tasks.submit,
            tag="Tasks",
            summary="Submit a task",
            description="201 means that the task is committed and will end. With an `Idempotency-Key`, the same "
            "request may be repeated at will: it is stored once, and the first answer is given again.",
            body=schemas.TaskSubmission,
            body_limit=limits.MAX_BODY_BYTES,
            body_example={"payload": "test task"},
            headers=("Idempotency-Key", "traceparent"),
            successes={
                201: Success(
                    "Accepted and committed.", views.TaskCreated, headers={"Location": "Path of the task.", **_REPLAYED}
                )
            },
            problems=_SUBMIT,
        ),
        Operation(
            id="readTask",
            method="GET",
            paths=(_TASKS + "/{task_id}", "/tasks/{task_id}"),
            handler=tasks.read,
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
            problems=("task-not-found", "invalid", *_STORED),
        ),
        Operation(
            id="submitTasks",
            method="POST",
            paths=(_TASKS + "/batch",),
            handler=tasks.submit_batch,
            tag="Tasks",
            summary="Submit many tasks, all or none",
            description=f"1 to {limits.MAX_BATCH_TASKS} tasks in one commit. If one of them is wrong, none is stored, "
            "and `errors` names each place that is wrong.",
            body=schemas.TaskBatch,
            body_limit=limits.MAX_BATCH_BODY_BYTES,
            body_example={"tasks": [{"payload": "one"}, {"payload": "two", "priority": 5}]},
            headers=("Idempotency-Key", "traceparent"),
            successes={201: Success("All accepted and committed.", views.BatchCreated, headers=_REPLAYED)},
            problems=_SUBMIT,
        ),
        Operation(
            id="listTasks",
            method="GET",
            paths=(_TASKS,),
            handler=tasks.list_page,
            tag="Tasks",
            summary="List tasks, newest first",
            description="Follow `next_cursor` until it is null: no task is skipped or repeated, whatever "
            "arrives meanwhile.",
            query=schemas.TaskListQuery,
            successes={200: Success("A page.", views.TaskPage)},
            problems=("invalid", *_STORED),
        ),
        Operation(
            id="cancelTask",
            method="POST",
            paths=(_TASKS + "/{task_id}/cancel",),
            handler=tasks.cancel,
            tag="Tasks",
            summary="Cancel a task",
            description="A pending task is cancelled at once; a running one is asked to stop, and becomes `cancelled` "
            "when its worker has stopped it. Repeating it changes nothing.",
            successes={200: seen},
            problems=("task-not-found", "wrong-status", "invalid", *_STORED),
        ),
        Operation(
            id="replayTask",
            method="POST",
            paths=(_TASKS + "/{task_id}/replay",),
            handler=tasks.replay,
            tag="Tasks",
            summary="Run a final task again",
            description="Gives a task that is done, failed or cancelled a fresh set of attempts. Its errors are kept.",
            successes={200: seen},
            problems=("task-not-found", "wrong-status", "invalid", *_STORED),
        ),
    ]


def _of_queues(queues: QueueRoutes) -> list[Operation]:
    one = Success("The queue.", views.QueueView)
    return [
        Operation(
            id="listQueues",
            method="GET",
            paths=("/api/v1/queues",),
            handler=queues.list_all,
            tag="Queues",
            summary="List queues with their figures",
            description="Figures are measured about once a second; `measured_at` says when.",
            successes={200: Success("Every queue.", views.QueueList)},
            problems=("invalid", *_STORED),
        ),
        Operation(
            id="readQueue",
            method="GET",
            paths=("/api/v1/queues/{name}",),
            handler=queues.read,
            tag="Queues",
            summary="Read a queue",
            successes={200: one},
            problems=("queue-not-found", "invalid", *_STORED),
        ),
        Operation(
            id="putQueue",
            method="PUT",
            paths=("/api/v1/queues/{name}",),
            handler=queues.put,
            tag="Queues",
            summary="Make a queue, or change it, and keep it",
            description="A queue that was made so is there before its first task, and stays until it is removed.",
            body=schemas.QueueWish,
            body_limit=16 * 1024,
            body_optional=True,
            body_example={"paused": True, "max_backlog": 1000},
            successes={
                201: Success("Made.", views.QueueView, headers={"Location": "Path of the queue."}),
                200: one,
            },
            problems=(*_BODY, *_STORED),
        ),
        Operation(
            id="removeQueue",
            method="DELETE",
            paths=("/api/v1/queues/{name}",),
            handler=queues.remove,
            tag="Queues",
            summary="Remove a queue",
            description="Refused while tasks wait or run in it, or a living worker consumes it. With `purge`, what "
            "waits is cancelled and what runs is asked to stop; repeat the request until it is answered with 204.",
            query=schemas.QueueRemoval,
            successes={204: Success("Gone; its final tasks stay until their retention.", content_type="")},
            problems=("queue-not-found", "queue-in-use", "invalid", *_STORED),
        ),
        Operation(
            id="changeQueue",
            method="PATCH",
            paths=("/api/v1/queues/{name}",),
            handler=queues.change,
            tag="Queues",
            summary="Pause or resume a queue, or set its limit",
            body=schemas.QueueChange,
            body_limit=16 * 1024,
            body_example={"paused": True},
            successes={200: one},
            problems=("queue-not-found", *_BODY, *_STORED),
        ),
    ]


def _of_types(types: TypeRoutes) -> list[Operation]:
    return [
        Operation(
            id="listTypes",
            method="GET",
            paths=("/api/v1/types",),
            handler=types.list_all,
            tag="Types",
            summary="List task types, and whether workers have them",
            successes={200: Success("Every known type.", views.TypeList)},
            problems=("invalid", *_STORED),
        ),
        Operation(
            id="readType",
            method="GET",
            paths=("/api/v1/types/{type}",),
            handler=types.read,
            tag="Types",
            summary="Read a task type",
            successes={200: Success("The type.", views.TypeView)},
            problems=("type-not-found", "invalid", *_STORED),
        ),
    ]


def _of_system(system: SystemRoutes) -> list[Operation]:
    return [
        Operation(
            id="health",
            method="GET",
            paths=("/health",),
            handler=system.health,
            tag="System",
            quiet=True,
            summary="Health, as the first version of the service reported it",
            successes={
                200: Success("The database answers.", views.HealthView),
                503: Success("The database is away.", views.HealthView),
            },
            problems=_ALWAYS,
        ),
        Operation(
            id="live",
            method="GET",
            paths=("/livez",),
            handler=system.live,
            tag="System",
            quiet=True,
            summary="Whether the process answers",
            description="Asks nothing else.",
            successes={200: Success("It does.", views.LiveView)},
            problems=_ALWAYS,
        ),
        Operation(
            id="ready",
            method="GET",
            paths=("/readyz",),
            handler=system.ready,
            tag="System",
            quiet=True,
            summary="Whether requests should be sent here",
            successes={
                200: Success("They should.", views.ReadyView),
                503: Success("They should not.", views.ReadyView),
            },
            problems=_ALWAYS,
        ),
        Operation(
            id="metrics",
            method="GET",
            paths=("/metrics",),
            handler=system.metrics,
            tag="System",
            quiet=True,
            summary="Metrics for Prometheus",
            successes={200: Success("All metrics of this process.", content_type="text/plain")},
            problems=_ALWAYS,
        ),
        Operation(
            id="openapi",
            method="GET",
            paths=("/api/openapi.json",),
            handler=system.openapi,
            tag="System",
            summary="This document",
            successes={200: Success("OpenAPI 3.1.")},
            problems=_ALWAYS,
        ),
        Operation(
            id="docs",
            method="GET",
            paths=("/docs",),
            handler=system.docs,
            tag="System",
            summary="This document, to read",
            successes={200: Success("A page without scripts.", content_type="text/html")},
            problems=_ALWAYS,
        ),
        Operation(
            id="home",
            method="GET",
            paths=("/",),
            handler=system.home,
            tag="System",
            quiet=True,
            public=False,
            summary="The way to the documentation",
            successes={307: Success("It is at the Location.", headers={"Location": "Path of the page."})},
            problems=_ALWAYS,
        ),
    ]


def _of_scaling(scaling: ScalingRoutes | None) -> list[Operation]:
    if scaling is None:
        return []
    return [
        Operation(
            id="scaling",
            method="GET",
            paths=("/internal/scaling",),
            handler=scaling.backlog,
            tag="System",
            quiet=True,
            public=False,
            summary="How much waits and runs, for an autoscaler",
            query=schemas.ScalingQuery,
            headers=("Authorization",),
            successes={200: Success("The sum over the queues.", ScalingView)},
            problems=("unauthorized", "queue-not-found", "invalid", "unknown", *_STORED),
        )
    ]
