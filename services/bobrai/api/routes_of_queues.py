"""The operations of queues, types and workers, for the table in ``routes``."""

from typing import Final

from bobrai.api import schemas, views, worker_view
from bobrai.api.operations import BODY, STORED, Operation, Success
from bobrai.api.queue_routes import QueueRoutes
from bobrai.api.type_routes import TypeRoutes
from bobrai.api.worker_routes import WorkerRoutes
from bobrai.domain import limits
from bobrai.domain.access import Scope

_ONE: Final = Success("The queue.", views.QueueView)


def of_queues(queues: QueueRoutes) -> list[Operation]:
    """Return them, those asked most often first."""
    return [*_reading(queues), *_changing(queues)]


def _reading(queues: QueueRoutes) -> list[Operation]:
    return [
        Operation(
            id="listQueues",
            method="GET",
            paths=("/api/v1/queues",),
            handler=queues.list_all,
            scope=Scope.QUEUES_READ,
            tag="Queues",
            summary="List queues with their figures",
            description="Figures are measured about once a second; `measured_at` says when.",
            successes={200: Success("Every queue.", views.QueueList)},
            problems=("invalid", *STORED),
        ),
        Operation(
            id="readQueue",
            method="GET",
            paths=("/api/v1/queues/{name}",),
            handler=queues.read,
            scope=Scope.QUEUES_READ,
            tag="Queues",
            summary="Read a queue",
            successes={200: _ONE},
            problems=("queue-not-found", "invalid", *STORED),
        ),
    ]


def _changing(queues: QueueRoutes) -> list[Operation]:
    return [
        Operation(
            id="putQueue",
            method="PUT",
            paths=("/api/v1/queues/{name}",),
            handler=queues.put,
            scope=Scope.QUEUES_CONTROL,
            tag="Queues",
            summary="Make a queue, or change it, and keep it",
            description="A queue that was made so is there before its first task, and stays until it is removed.",
            body=schemas.QueueWish,
            body_limit=limits.MAX_BODY_BYTES,
            body_optional=True,
            body_example={"max_backlog": 1000, "limits": {"concurrency": 20, "rate": "10/s"}},
            successes={
                201: Success("Made.", views.QueueView, headers={"Location": "Path of the queue."}),
                200: _ONE,
            },
            problems=(*BODY, *STORED),
        ),
        Operation(
            id="removeQueue",
            method="DELETE",
            paths=("/api/v1/queues/{name}",),
            handler=queues.remove,
            scope=Scope.QUEUES_CONTROL,
            tag="Queues",
            summary="Remove a queue",
            description="Refused while tasks wait or run in it, or a living worker consumes it. With `purge`, what "
            "waits is cancelled and what runs is asked to stop; repeat the request until it is answered with 204.",
            query=schemas.QueueRemoval,
            successes={204: Success("Gone; its final tasks stay until their retention.", content_type="")},
            problems=("queue-not-found", "queue-in-use", "invalid", *STORED),
        ),
        Operation(
            id="changeQueue",
            method="PATCH",
            paths=("/api/v1/queues/{name}",),
            handler=queues.change,
            scope=Scope.QUEUES_CONTROL,
            tag="Queues",
            summary="Pause or resume a queue, or set its limits",
            body=schemas.QueueChange,
            body_limit=limits.MAX_BODY_BYTES,
            body_example={"paused": True},
            successes={200: _ONE},
            problems=("queue-not-found", *BODY, *STORED),
        ),
    ]


def of_types(types: TypeRoutes) -> list[Operation]:
    """Return them."""
    return [
        Operation(
            id="listTypes",
            method="GET",
            paths=("/api/v1/types",),
            handler=types.list_all,
            scope=Scope.QUEUES_READ,
            tag="Types",
            summary="List task types, and whether workers have them",
            successes={200: Success("Every known type.", views.TypeList)},
            problems=("invalid", *STORED),
        ),
        Operation(
            id="readType",
            method="GET",
            paths=("/api/v1/types/{type}",),
            handler=types.read,
            scope=Scope.QUEUES_READ,
            tag="Types",
            summary="Read a task type",
            successes={200: Success("The type.", views.TypeView)},
            problems=("type-not-found", "invalid", *STORED),
        ),
        Operation(
            id="changeType",
            method="PATCH",
            paths=("/api/v1/types/{type}",),
            handler=types.change,
            scope=Scope.QUEUES_CONTROL,
            tag="Types",
            summary="Set the limits of a task type",
            description="They hold over all queues, in place of those that its handler declares, until they are set "
            "again or the type is forgotten.",
            body=schemas.TypeChange,
            body_limit=limits.MAX_BODY_BYTES,
            body_example={"limits": {"per_key": {"key": "/account", "concurrency": 3}}},
            successes={200: Success("The type.", views.TypeView)},
            problems=("type-not-found", *BODY, *STORED),
        ),
    ]


def of_workers(workers: WorkerRoutes) -> list[Operation]:
    """Return it."""
    return [
        Operation(
            id="listWorkers",
            method="GET",
            paths=("/api/v1/workers",),
            handler=workers.list_all,
            scope=Scope.QUEUES_READ,
            tag="Workers",
            summary="List the living workers",
            description="One whose lease is over is not among them, be it only cut off from the database.",
            successes={200: Success("Every living worker.", worker_view.WorkerList)},
            problems=("invalid", *STORED),
        ),
    ]
