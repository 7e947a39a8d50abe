"""The handlers of /queues: figures, pausing, limits.

Figures are read as the dispatchers measured them, never counted on request.
"""

from collections.abc import Awaitable, Callable

import msgspec
from pydantic import ValidationError

from bobrai.api import problems, schemas, views
from bobrai.api.problems import Fault, Problem
from bobrai.api.web import Reply, Request
from bobrai.store import queues, workers
from bobrai.store.pool import Database


class QueueRoutes:
    """Handlers of queues; ``changed`` is awaited after a change, so that this process knows it at once."""

    def __init__(self, database: Database, changed: Callable[[], Awaitable[object]]) -> None:
        self._database = database
        self._changed = changed

    async def list_all(self, request: Request) -> Reply:
        """Return every queue."""
        schemas.query(schemas.NoQuery, request.query_string)
        return Reply(views.encode(views.QueueList(await self._views())))

    async def read(self, request: Request) -> Reply:
        """Return one queue."""
        schemas.query(schemas.NoQuery, request.query_string)
        return await self._one(request.params["name"])

    async def change(self, request: Request) -> Reply:
        """Pause or resume a queue, or set its limit."""
        schemas.query(schemas.NoQuery, request.query_string)
        wish = _wish(request.body)
        exists = await queues.change(
            self._database,
            _storable(request.params["name"]),
            paused=wish.paused,
            sets_max_backlog="max_backlog" in wish.model_fields_set,
            max_backlog=wish.max_backlog,
        )
        if not exists:
            raise _not_found()
        await self._changed()
        return await self._one(request.params["name"])

    async def _views(self) -> list[views.QueueView]:
        live = await workers.live(self._database)
        return [views.queue(row, live) for row in await queues.every(self._database)]

    async def _one(self, name: str) -> Reply:
        for view in await self._views():
            if view.name == name:
                return Reply(views.encode(view))
        raise _not_found()


def _wish(body: bytes) -> schemas.QueueChange:
    try:
        given = msgspec.json.decode(body)
    except msgspec.ValidationError as error:
        raise problems.invalid([Fault("", "has a number that is out of range")]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise problems.bad_json(f"The body is not JSON: {error}") from error
    try:
        wish = schemas.QueueChange.model_validate(given)
    except ValidationError as error:
        raise problems.invalid(schemas.faults_of(error)) from error
    if not wish.model_fields_set:
        raise problems.invalid([Fault("", "must have paused or max_backlog")])
    return wish


def _storable(name: str) -> str:
    if "\x00" in name:  # no queue can have it, and PostgreSQL takes no such text
        raise _not_found()
    return name


def _not_found() -> Problem:
    return Problem("queue-not-found", "Queue not found")
