"""The handlers of /types: what workers have announced, whether any has it now, and limits in place of declared ones."""

from bobrai.api import bodies_of, problems, schemas, views
from bobrai.api.problems import Fault, Problem
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
        return await self._one(request)

    async def change(self, request: Request) -> Reply:
        """Set the limits of a type, or have the declared ones hold again."""
        schemas.query(schemas.NoQuery, request.query_string)
        wish = bodies_of.wish(request.body, schemas.TypeChange)
        name, grant = request.params["type"], request.principal.grant
        if "\x00" in name or not grant.has_type(name):  # PostgreSQL takes no text with a NUL
            raise _not_found()
        if not grant.has_whole_types:
            raise problems.outside_grant(
                [Fault("/path/type", "the credential reaches some of a type's tasks, and this would be for them all")]
            )
        limits = None if wish.limits is None else wish.limits.value()
        if not await task_types.set_limits(self._database, name, limits, by=request.author):
            raise _not_found()
        return await self._one(request)

    async def _one(self, request: Request) -> Reply:
        for view in await self._views(request):
            if view.name == request.params["type"]:
                return Reply(views.encode(view))
        raise _not_found()

    async def _views(self, request: Request) -> list[views.TypeView]:
        live = await workers.live(self._database)
        found = await task_types.announced(self._database)
        grant = request.principal.grant
        return [views.task_type(each, live, grant) for each in found if grant.has_type(each.type.name)]


def _not_found() -> Problem:
    return Problem("type-not-found", "Type not found")
