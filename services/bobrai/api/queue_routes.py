"""The handlers of /queues: making and removing, figures, pausing, limits.

Figures are read as the dispatchers measured them, never counted on request.
"""

import re
import time
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import UNSET

from bobrai.api import bodies_of, problems, schemas, views
from bobrai.api.problems import Fault, Problem
from bobrai.api.web import Reply, Request
from bobrai.domain import limits
from bobrai.domain.access import Grant
from bobrai.domain.audit import Author
from bobrai.domain.task import DEFAULT_QUEUE
from bobrai.store import queues, workers
from bobrai.store.pool import Transactional
from bobrai.store.purging import Purge
from bobrai.store.queues import Removal, Wishes
from bobrai.telemetry import metrics

_PATH: Final = "/api/v1/queues"
_NAME: Final = re.compile(limits.QUEUE_PATTERN)
_PURGE_BATCH: Final = 2000  # some tens of milliseconds each
_PURGE_SECONDS: Final = 4.0  # and one batch, and the removal: less than a request may take


class QueueRoutes:
    """Handlers of queues; ``changed`` is awaited after a change, so that this process knows it at once."""

    def __init__(self, database: Transactional, changed: Callable[[], Awaitable[object]]) -> None:
        self._database = database
        self._changed = changed

    async def list_all(self, request: Request) -> Reply:
        """Return every queue."""
        schemas.query(schemas.NoQuery, request.query_string)
        return Reply(views.encode(views.QueueList(await self._views(request.principal.grant))))

    async def read(self, request: Request) -> Reply:
        """Return one queue."""
        schemas.query(schemas.NoQuery, request.query_string)
        return await self._one(request.params["name"], request.principal.grant)

    async def put(self, request: Request) -> Reply:
        """Make a queue that is kept until it is removed, or change one and keep it."""
        schemas.query(schemas.NoQuery, request.query_string)
        name = request.params["name"]
        if _NAME.fullmatch(name) is None:
            raise problems.invalid([Fault("/path/name", f"must match {limits.QUEUE_PATTERN}")])
        if not request.principal.grant.has_queue(name):
            raise problems.outside_grant([Fault("/path/name", f"the credential does not reach the queue {name!r}")])
        _require_whole(request)
        wish = bodies_of.wish(request.body or b"{}", schemas.QueueWish)
        made = await queues.put(self._database, name, _wishes(wish), by=request.author)
        if made is None:
            raise problems.invalid([Fault("/path/name", problems.one_too_many(name))])
        await self._changed()
        reply = await self._one(name, request.principal.grant)
        if made:
            reply.status = 201
            reply.headers = ((b"location", f"{request.prefix}{_PATH}/{name}".encode("ascii")),)
        return reply

    async def change(self, request: Request) -> Reply:
        """Pause or resume a queue, or set its limits."""
        schemas.query(schemas.NoQuery, request.query_string)
        wish = bodies_of.wish(request.body, schemas.QueueChange)
        if not wish.model_fields_set:
            raise problems.invalid([Fault("", "must have paused, max_backlog or limits")])
        name = _reached(request)
        _require_whole(request)
        if not await queues.change(self._database, name, _wishes(wish), by=request.author):
            raise _not_found()
        await self._changed()
        return await self._one(request.params["name"], request.principal.grant)

    async def remove(self, request: Request) -> Reply:
        """Remove a queue that nothing uses, after a purge if that is wished."""
        purge = schemas.query(schemas.QueueRemoval, request.query_string).purge
        name = _reached(request)
        _require_whole(request)
        if name == DEFAULT_QUEUE:
            raise Problem("queue-in-use", f"The queue {name!r} takes the tasks that name none, and cannot be removed")
        if name not in await queues.live(self._database):
            raise _not_found()
        done = await self._purge(name, request.author) if purge else ""
        removal = await queues.remove(self._database, name, by=request.author)
        await self._changed()
        if removal is None:
            raise _not_found()
        if not removal.removed:
            raise Problem("queue-in-use", done + _why(name, removal, purge=purge))
        return Reply(status=204)

    async def _purge(self, name: str, by: Author) -> str:
        """Cancel what waits, batch by batch, and ask what runs to stop; returns what was done, in words.

        A client is not kept waiting for a million tasks: after some seconds it is told to go on by asking again.
        """
        ends = time.monotonic() + _PURGE_SECONDS
        purge = Purge(self._database, name, by=by)
        try:
            while time.monotonic() < ends:
                cancelled = await purge.cancel_waiting(limit=_PURGE_BATCH)
                for type_, count in cancelled.items():
                    metrics.TASKS_FINISHED.labels(name, type_, "cancelled").inc(count)
                if sum(cancelled.values()) < _PURGE_BATCH:
                    break
            while time.monotonic() < ends:
                if await purge.ask_running(limit=_PURGE_BATCH) < _PURGE_BATCH:
                    break
        finally:
            purge.tell()
        return f"{purge.cancelled} waiting tasks were cancelled. " if purge.cancelled else ""

    async def _views(self, grant: Grant) -> list[views.QueueView]:
        live = await workers.live(self._database)
        rows = await queues.every(self._database)
        return [views.queue(row, live, grant) for row in rows if grant.has_queue(row["name"])]

    async def _one(self, name: str, grant: Grant) -> Reply:
        for view in await self._views(grant):
            if view.name == name:
                return Reply(views.encode(view))
        raise _not_found()


def _why(name: str, removal: Removal, *, purge: bool) -> str:
    """Return what keeps a queue from being removed, and what to do."""
    if removal.running and purge:
        return (
            f"{removal.running} tasks still run in {name!r} and were asked to stop: repeat the request once they have"
        )
    if removal.waits and purge:
        return f"More tasks wait in {name!r}: repeat the request until they are all cancelled"
    if removal.waits or removal.running:
        return f"Tasks wait or run in {name!r}: let them end, or cancel them all by asking with ?purge=true"
    return (
        f"{removal.workers} living workers consume {name!r}: stop them, or start them without it in "
        "BOBRAI_WORKER_QUEUES, then repeat the request"
    )


def _wishes(given: schemas.QueueWish) -> Wishes:
    said = given.model_fields_set
    wished = None if given.limits is None else given.limits.value()
    return Wishes(
        paused=given.paused,
        max_backlog=given.max_backlog if "max_backlog" in said else UNSET,
        limits=wished if "limits" in said else UNSET,
    )


def _require_whole(request: Request) -> None:
    """Raise a 403 problem for a credential that reaches some of a queue's tasks only: a change is for them all."""
    if not request.principal.grant.has_whole_queues:
        raise problems.outside_grant(
            [Fault("/path/name", "the credential reaches some of the tasks of a queue, and this would be for them all")]
        )


def _reached(request: Request) -> str:
    """Return the name of the queue in the path; raises the problem of one that is not there for what is outside."""
    name = request.params["name"]
    if "\x00" in name or not request.principal.grant.has_queue(name):  # PostgreSQL takes no text with a NUL
        raise _not_found()
    return name


def _not_found() -> Problem:
    return Problem("queue-not-found", "Queue not found")
