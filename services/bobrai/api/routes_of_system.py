"""The operations that speak of the process and of the API itself, for the table in ``routes``; all but one are open."""

from bobrai.api import schemas, views
from bobrai.api.operations import ALWAYS, STORED, Operation, Success
from bobrai.api.scaling_routes import ScalingRoutes, ScalingView
from bobrai.api.system_routes import SystemRoutes
from bobrai.domain.access import Scope


def of_system(system: SystemRoutes) -> list[Operation]:
    """Return them."""
    return [*_of_process(system), *_of_documents(system)]


def _of_process(system: SystemRoutes) -> list[Operation]:
    return [
        Operation(
            id="health",
            method="GET",
            paths=("/health",),
            handler=system.health,
            scope=None,
            tag="System",
            quiet=True,
            summary="Health, as the first version of the service reported it",
            successes={
                200: Success("The database answers.", views.HealthView),
                503: Success("The database is away.", views.HealthView),
            },
            problems=ALWAYS,
        ),
        Operation(
            id="live",
            method="GET",
            paths=("/livez",),
            handler=system.live,
            scope=None,
            tag="System",
            quiet=True,
            summary="Whether the process answers",
            description="Asks nothing else.",
            successes={200: Success("It does.", views.LiveView)},
            problems=ALWAYS,
        ),
        Operation(
            id="ready",
            method="GET",
            paths=("/readyz",),
            handler=system.ready,
            scope=None,
            tag="System",
            quiet=True,
            summary="Whether requests should be sent here",
            successes={
                200: Success("They should.", views.ReadyView),
                503: Success("They should not.", views.ReadyView),
            },
            problems=ALWAYS,
        ),
        Operation(
            id="metrics",
            method="GET",
            paths=("/metrics",),
            handler=system.metrics,
            scope=None,
            tag="System",
            quiet=True,
            tells_names=True,
            summary="Metrics for Prometheus",
            successes={200: Success("All metrics of this process.", content_type="text/plain")},
            problems=ALWAYS,
        ),
    ]


def _of_documents(system: SystemRoutes) -> list[Operation]:
    return [
        Operation(
            id="openapi",
            method="GET",
            paths=("/api/openapi.json",),
            handler=system.openapi,
            scope=None,
            tag="System",
            summary="This document",
            successes={200: Success("OpenAPI 3.1.")},
            problems=ALWAYS,
        ),
        Operation(
            id="docs",
            method="GET",
            paths=("/docs",),
            handler=system.docs,
            scope=None,
            tag="System",
            summary="This document, to read",
            successes={200: Success("A page without scripts.", content_type="text/html")},
            problems=ALWAYS,
        ),
        Operation(
            id="home",
            method="GET",
            paths=("/",),
            handler=system.home,
            scope=None,
            tag="System",
            quiet=True,
            public=False,
            summary="The way to the documentation",
            successes={307: Success("It is at the Location.", headers={"Location": "Path of the page."})},
            problems=ALWAYS,
        ),
    ]


def of_scaling(scaling: ScalingRoutes) -> list[Operation]:
    """Return it."""
    return [
        Operation(
            id="scaling",
            method="GET",
            paths=("/internal/scaling",),
            handler=scaling.backlog,
            scope=Scope.QUEUES_READ,
            tag="System",
            quiet=True,
            public=False,
            summary="How much waits and runs, for an autoscaler",
            query=schemas.ScalingQuery,
            successes={200: Success("The sum over the queues.", ScalingView)},
            problems=("outside-grant", "queue-not-found", "invalid", "unknown", *STORED),
        )
    ]
