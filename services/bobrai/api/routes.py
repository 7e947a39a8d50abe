"""The table of all operations: what the API answers, who may ask it, and what its documentation says.

In: the handlers of the ``*_routes`` modules. Out: operations, from which ``app`` makes the router and ``openapi`` the
document. A new path is one entry in a ``routes_of_*`` module and one handler.
"""

from bobrai.api.audit_routes import AuditRoutes
from bobrai.api.key_routes import KeyRoutes
from bobrai.api.operations import Operation
from bobrai.api.queue_routes import QueueRoutes
from bobrai.api.routes_of_audit import of_audit
from bobrai.api.routes_of_keys import of_keys
from bobrai.api.routes_of_queues import of_queues, of_types, of_workers
from bobrai.api.routes_of_system import of_scaling, of_system
from bobrai.api.routes_of_tasks import of_tasks
from bobrai.api.scaling_routes import ScalingRoutes
from bobrai.api.system_routes import SystemRoutes
from bobrai.api.task_routes import TaskRoutes
from bobrai.api.type_routes import TypeRoutes
from bobrai.api.worker_routes import WorkerRoutes


def operations(
    tasks: TaskRoutes,
    queues: QueueRoutes,
    types: TypeRoutes,
    workers: WorkerRoutes,
    keys: KeyRoutes,
    audit: AuditRoutes,
    system: SystemRoutes,
    scaling: ScalingRoutes,
) -> list[Operation]:
    """Return every operation; those asked most often come first, because the router tries them in this order."""
    return [
        *of_tasks(tasks),
        *of_queues(queues),
        *of_types(types),
        *of_workers(workers),
        *of_keys(keys),
        *of_audit(audit),
        *of_system(system),
        *of_scaling(scaling),
    ]
