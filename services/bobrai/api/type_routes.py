"""The handlers of /types: what workers have announced, and whether any has it now."""

from bobrai.api import schemas, views
from bobrai.api.problems import Problem
from bobrai.api.web import Reply, Request
from bobrai.store import task_types, workers
from bobrai.store.pool import Executor


class TypeRoutes:
    """Handlers of task types, which only workers make."""

    def __init__(self, database: Executor) -> None:
        self._database = database

    async def list_all(self, request: Request) -> Reply:
        """Return every type."""
        schemas.query(schemas.NoQuery, request.query_string)
        return Reply(views.encode(views.TypeList(await self._views(request))))

    async def read(self, request: Request) -> Reply:
        """Return one type."""
        schemas.query(schemas.NoQuery, request.query_string)
        for view in await self._views(request):
            if view.name == request.params["type"]:
                return Reply(views.encode(view))
        raise Problem("type-not-found", "Type not found")

    async def _views(self, request: Request) -> list[views.TypeView]:
        live = await workers.live(self._database)
        found = await task_types.announced(self._database)
        grant = request.principal.grant
        return [views.task_type(each, live, grant) for each in found if grant.has_type(each.type.name)]
