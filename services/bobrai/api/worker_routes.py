"""The handler of /workers: who lives, and what each can run."""

from bobrai.api import schemas, views, worker_view
from bobrai.api.web import Reply, Request
from bobrai.domain.access import Grant
from bobrai.store import workers
from bobrai.store.pool import Executor
from bobrai.store.workers import LiveWorker


class WorkerRoutes:
    """Handlers of workers, which come and go by themselves."""

    def __init__(self, database: Executor) -> None:
        self._database = database

    async def list_all(self, request: Request) -> Reply:
        """Return every living worker that consumes a queue and may have a type which the credential reaches."""
        schemas.query(schemas.NoQuery, request.query_string)
        grant = request.principal.grant
        living = sorted(await workers.live(self._database), key=lambda worker: worker.id)
        found = [worker_view.worker(each, grant) for each in living if _is_reached(each, grant)]
        return Reply(views.encode(worker_view.WorkerList(found)))


def _is_reached(worker: LiveWorker, grant: Grant) -> bool:
    may_have = worker.types is None or any(map(grant.has_type, worker.types))
    return may_have and any(map(grant.has_queue, worker.queues))
