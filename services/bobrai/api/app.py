"""The ASGI application: operations on their paths, by Starlette's router.

In: operations. Out: an application without lifespan or middleware; what surrounds every handler is in ``endpoint``.
"""

from collections.abc import Sequence

from starlette.routing import Route, Router

from bobrai.access.gate import Gate
from bobrai.api.bodies import Bodies
from bobrai.api.browsers import Browsers
from bobrai.api.deadlines import Deadlines
from bobrai.api.endpoint import Endpoint, Shared
from bobrai.api.operations import Operation
from bobrai.settings import Settings


def build(operations: Sequence[Operation], gate: Gate, settings: Settings) -> Router:
    """Return the router, with one endpoint per path; an unknown path gets a problem too."""
    paths: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        for path in operation.paths:
            paths.setdefault(path, {})[operation.method] = operation
    bounds = settings.api
    shared = Shared(
        gate,
        Browsers(settings),
        Deadlines(bounds.max_requests, bounds.max_requests_per_principal),
        Bodies(bounds.max_bodies_bytes),
    )
    routes = [Route(path, Endpoint(path, methods, shared)) for path, methods in _fixed_first(paths)]
    return Router(routes, redirect_slashes=False, default=Endpoint("unmatched", {}, shared))


def _fixed_first(paths: dict[str, dict[str, Operation]]) -> list[tuple[str, dict[str, Operation]]]:
    """Paths without parameters first: /tasks/batch is no task's id."""
    return sorted(paths.items(), key=lambda item: "{" in item[0])
