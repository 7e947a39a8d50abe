"""Lists of tasks, queues, types, workers, keys and the audit: the client's methods, which only name their operation.

In: what the caller has said. Out: values of ``models``. Each raises ApiError and ConnectionFailed.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias, TypedDict, TypeVar, Unpack

from msgspec import UNSET, UnsetType

from bobrai.client import models, operations
from bobrai.client.operations import Flow

Value = TypeVar("Value")
Page = TypeVar("Page", models.TaskPage, models.AuditPage)
#: As docs/api.md has them: ``{"concurrency": 20, "rate": "10/s", "per_key": {"key": "/account", "concurrency": 3}}``.
LimitsSaid: TypeAlias = Mapping[str, Any]


class TaskFilter(TypedDict, total=False):
    """Which tasks to list; None is any."""

    status: str | None
    type: str | None
    queue: str | None
    parent_id: int | None
    created_after: datetime | None
    created_before: datetime | None


class ChangeFilter(TypedDict, total=False):
    """Which changes to list; None is any."""

    actor: str | None
    action: str | None
    target: str | None
    after: datetime | None
    before: datetime | None


class Resources:
    """What ``Client`` has beside submitting tasks."""

    def _run(self, flow: Flow[Value]) -> Value:
        raise NotImplementedError

    def _pages(self, path: str, filters: Mapping[str, Any], model: type[Page]) -> Iterator[Page]:
        """Read page after page, as they are asked for."""
        cursor = None
        while True:
            page = self._run(operations.page(path, filters, cursor, model))
            yield page
            if (cursor := page.next_cursor) is None:
                return

    def tasks(self, *, page_size: int = 100, **filters: Unpack[TaskFilter]) -> Iterator[models.Task]:
        """Read tasks, newest first, page after page as they are asked for; none is skipped or repeated."""
        for page in self._pages("/tasks", {**filters, "limit": page_size}, models.TaskPage):
            yield from page.tasks

    def audit(self, *, page_size: int = 100, **filters: Unpack[ChangeFilter]) -> Iterator[models.Change]:
        """Read who changed what, newest first, page after page as they are asked for."""
        for page in self._pages("/audit", {**filters, "limit": page_size}, models.AuditPage):
            yield from page.entries

    def queues(self) -> list[models.Queue]:
        """Return every queue with its figures, by name."""
        return self._run(operations.get("/queues", models.QueueList)).queues

    def queue(self, name: str) -> models.Queue:
        """Return a queue; raises QueueNotFound."""
        return self._run(operations.get(_queue(name), models.Queue))

    def put_queue(
        self,
        name: str,
        *,
        paused: bool | UnsetType = UNSET,
        max_backlog: int | UnsetType | None = UNSET,
        limits: LimitsSaid | UnsetType | None = UNSET,
    ) -> models.Queue:
        """Make a queue that stays until it is removed, or change one and keep it; what is left out stays as it is."""
        return self._run(
            operations.change(
                "PUT",
                _queue(name),
                {"paused": paused, "max_backlog": max_backlog, "limits": limits},
                models.Queue,
            )
        )

    def pause_queue(self, name: str) -> models.Queue:
        """Start none of a queue's tasks; it goes on accepting them."""
        return self._run(operations.change("PATCH", _queue(name), {"paused": True}, models.Queue))

    def resume_queue(self, name: str) -> models.Queue:
        """Start a queue's tasks again."""
        return self._run(operations.change("PATCH", _queue(name), {"paused": False}, models.Queue))

    def limit_queue(self, name: str, limits: LimitsSaid | None) -> models.Queue:
        """Bound how many of a queue's tasks run at once and start in a time; None: no limit."""
        return self._run(operations.change("PATCH", _queue(name), {"limits": limits}, models.Queue))

    def remove_queue(self, name: str, *, purge: bool = False) -> None:
        """Remove a queue; ``purge`` cancels what waits in it. Raises QueueInUse while something uses it."""
        self._run(operations.remove(_queue(name), {"purge": "true"} if purge else {}))

    def types(self) -> list[models.TaskType]:
        """Return every known task type, by name."""
        return self._run(operations.get("/types", models.TypeList)).types

    def type(self, name: str) -> models.TaskType:
        """Return a task type; raises TypeNotFound."""
        return self._run(operations.get(_type(name), models.TaskType))

    def limit_type(self, name: str, limits: LimitsSaid | None) -> models.TaskType:
        """Set a type's limits in place of the declared ones; ``{}``: none, None: the declared ones hold again."""
        return self._run(operations.change("PATCH", _type(name), {"limits": limits}, models.TaskType))

    def workers(self) -> list[models.Worker]:
        """Return the living workers, the oldest first."""
        return self._run(operations.get("/workers", models.WorkerList)).workers

    def keys(self) -> list[models.Key]:
        """Return every API key, the oldest first."""
        return self._run(operations.get("/keys", models.KeyList)).keys

    def key(self, key_id: str) -> models.Key:
        """Return an API key, without its secret; raises KeyNotFound."""
        return self._run(operations.get(_key(key_id), models.Key))

    def create_key(self, name: str, scopes: Sequence[str], **wishes: Any) -> models.NewKey:
        """Make an API key, whose secret is told once. ``wishes``: ``queues``, ``rate`` and more, see docs/access.md."""
        return self._run(
            operations.change(
                "POST", "/keys", {"name": name, "scopes": list(scopes), **wishes}, models.NewKey, is_repeatable=False
            )
        )

    def rotate_key(self, key_id: str, *, grace_seconds: float | UnsetType = UNSET) -> models.NewKey:
        """Give an API key another secret; the one so far works for the grace."""
        return self._run(
            operations.change(
                "POST",
                _key(key_id) + "/rotate",
                {"grace_seconds": grace_seconds},
                models.NewKey,
                is_repeatable=False,
            )
        )

    def revoke_key(self, key_id: str) -> None:
        """End an API key."""
        self._run(operations.remove(_key(key_id), {}))


class AsyncResources:
    """What ``AsyncClient`` has beside submitting tasks."""

    async def _run(self, flow: Flow[Value]) -> Value:
        raise NotImplementedError

    async def _pages(self, path: str, filters: Mapping[str, Any], model: type[Page]) -> AsyncIterator[Page]:
        """Read page after page, as they are asked for."""
        cursor = None
        while True:
            page = await self._run(operations.page(path, filters, cursor, model))
            yield page
            if (cursor := page.next_cursor) is None:
                return

    async def tasks(self, *, page_size: int = 100, **filters: Unpack[TaskFilter]) -> AsyncIterator[models.Task]:
        """Read tasks, newest first, page after page as they are asked for; none is skipped or repeated."""
        async for page in self._pages("/tasks", {**filters, "limit": page_size}, models.TaskPage):
            for task in page.tasks:
                yield task

    async def audit(self, *, page_size: int = 100, **filters: Unpack[ChangeFilter]) -> AsyncIterator[models.Change]:
        """Read who changed what, newest first, page after page as they are asked for."""
        async for page in self._pages("/audit", {**filters, "limit": page_size}, models.AuditPage):
            for entry in page.entries:
                yield entry

    async def queues(self) -> list[models.Queue]:
        """Return every queue with its figures, by name."""
        return (await self._run(operations.get("/queues", models.QueueList))).queues

    async def queue(self, name: str) -> models.Queue:
        """Return a queue; raises QueueNotFound."""
        return await self._run(operations.get(_queue(name), models.Queue))

    async def put_queue(
        self,
        name: str,
        *,
        paused: bool | UnsetType = UNSET,
        max_backlog: int | UnsetType | None = UNSET,
        limits: LimitsSaid | UnsetType | None = UNSET,
    ) -> models.Queue:
        """Make a queue that stays until it is removed, or change one and keep it; what is left out stays as it is."""
        return await self._run(
            operations.change(
                "PUT",
                _queue(name),
                {"paused": paused, "max_backlog": max_backlog, "limits": limits},
                models.Queue,
            )
        )

    async def pause_queue(self, name: str) -> models.Queue:
        """Start none of a queue's tasks; it goes on accepting them."""
        return await self._run(operations.change("PATCH", _queue(name), {"paused": True}, models.Queue))

    async def resume_queue(self, name: str) -> models.Queue:
        """Start a queue's tasks again."""
        return await self._run(operations.change("PATCH", _queue(name), {"paused": False}, models.Queue))

    async def limit_queue(self, name: str, limits: LimitsSaid | None) -> models.Queue:
        """Bound how many of a queue's tasks run at once and start in a time; None: no limit."""
        return await self._run(operations.change("PATCH", _queue(name), {"limits": limits}, models.Queue))

    async def remove_queue(self, name: str, *, purge: bool = False) -> None:
        """Remove a queue; ``purge`` cancels what waits in it. Raises QueueInUse while something uses it."""
        await self._run(operations.remove(_queue(name), {"purge": "true"} if purge else {}))

    async def types(self) -> list[models.TaskType]:
        """Return every known task type, by name."""
        return (await self._run(operations.get("/types", models.TypeList))).types

    async def type(self, name: str) -> models.TaskType:
        """Return a task type; raises TypeNotFound."""
        return await self._run(operations.get(_type(name), models.TaskType))

    async def limit_type(self, name: str, limits: LimitsSaid | None) -> models.TaskType:
        """Set a type's limits in place of the declared ones; ``{}``: none, None: the declared ones hold again."""
        return await self._run(operations.change("PATCH", _type(name), {"limits": limits}, models.TaskType))

    async def workers(self) -> list[models.Worker]:
        """Return the living workers, the oldest first."""
        return (await self._run(operations.get("/workers", models.WorkerList))).workers

    async def keys(self) -> list[models.Key]:
        """Return every API key, the oldest first."""
        return (await self._run(operations.get("/keys", models.KeyList))).keys

    async def key(self, key_id: str) -> models.Key:
        """Return an API key, without its secret; raises KeyNotFound."""
        return await self._run(operations.get(_key(key_id), models.Key))

    async def create_key(self, name: str, scopes: Sequence[str], **wishes: Any) -> models.NewKey:
        """Make an API key, whose secret is told once. ``wishes``: ``queues``, ``rate`` and more, see docs/access.md."""
        return await self._run(
            operations.change(
                "POST", "/keys", {"name": name, "scopes": list(scopes), **wishes}, models.NewKey, is_repeatable=False
            )
        )

    async def rotate_key(self, key_id: str, *, grace_seconds: float | UnsetType = UNSET) -> models.NewKey:
        """Give an API key another secret; the one so far works for the grace."""
        return await self._run(
            operations.change(
                "POST",
                _key(key_id) + "/rotate",
                {"grace_seconds": grace_seconds},
                models.NewKey,
                is_repeatable=False,
            )
        )

    async def revoke_key(self, key_id: str) -> None:
        """End an API key."""
        await self._run(operations.remove(_key(key_id), {}))


def _queue(name: str) -> str:
    return operations.named("/queues", name)


def _type(name: str) -> str:
    return operations.named("/types", name)


def _key(key_id: str) -> str:
    return operations.named("/keys", key_id)
