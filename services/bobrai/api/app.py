"""The ASGI application: operations on their paths, by Starlette's router.

In: operations. Out: an application without lifespan or middleware; what surrounds every handler is in ``endpoint``.
"""

from collections.abc import Sequence

from starlette.routing import Route, Router

from bobrai.access.gate import Gate
from bobrai.api.bodies import Bodies
from bobrai.api.deadlines import Deadlines
from bobrai.api.endpoint import Endpoint
from bobrai.api.operations import Operation


def build(operations: Sequence[Operation], gate: Gate, bodies: Bodies, max_requests: int) -> Router:
    """Return the router, with one endpoint per path; an unknown path gets a problem too."""
    paths: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        for path in operation.paths:
            paths.setdefault(path, {})[operation.method] = operation
    deadlines = Deadlines(max_requests)
    routes = [Route(path, Endpoint(path, methods, gate, deadlines, bodies)) for path, methods in _fixed_first(paths)]
    return Router(routes, redirect_slashes=False, default=Endpoint("unmatched", {}, gate, deadlines, bodies))


def _fixed_first(paths: dict[str, dict[str, Operation]]) -> list[tuple[str, dict[str, Operation]]]:
    """Paths without parameters first: /tasks/batch is no task's id."""
    return sorted(paths.items(), key=lambda item: "{" in item[0])
