"""How tasks are submitted, typed by their handlers: a payload that the handler does not take is an error for mypy.

In: a handler's function, or a type's name, and payloads. Out: handles whose results have the handler's type. A handler
that takes nothing but what its process has for it, after a ``*``, is submitted by its type's name.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from bobrai.client import operations
from bobrai.domain.submitting import Named, Options, Submission

if TYPE_CHECKING:
    from bobrai.client.async_client import AsyncTaskHandle
    from bobrai.client.client import TaskHandle
    from bobrai.handlers.batches import Item
    from bobrai.handlers.context import Context

K = ParamSpec("K")
P = TypeVar("P")
R = TypeVar("R")


class Says(Options, total=False):
    """The options of a submission, and the key under which it is stored once, however often it is sent."""

    idempotency_key: str | None


class Submits:
    """What ``Client`` has of it."""

    def _submit(self, task: Named, payload: Any, options: Options, key: str | None) -> TaskHandle[Any]:
        raise NotImplementedError

    def _submit_many(self, submissions: Iterable[Submission], key: str | None) -> list[TaskHandle[Any]]:
        raise NotImplementedError

    @overload
    def submit(self, task: str, payload: Any = None, **options: Unpack[Says]) -> TaskHandle[Any]: ...
    @overload
    def submit(
        self,
        task: Callable[Concatenate[list[Item[P]], K], Coroutine[Any, Any, list[R]]],
        payload: P,
        **options: Unpack[Says],
    ) -> TaskHandle[R]: ...
    @overload
    def submit(
        self, task: Callable[Concatenate[list[Item[P]], K], list[R]], payload: P, **options: Unpack[Says]
    ) -> TaskHandle[R]: ...
    @overload
    def submit(
        self, task: Callable[Concatenate[list[Item[P]], K], Any], payload: P, **options: Unpack[Says]
    ) -> TaskHandle[Any]: ...
    @overload
    def submit(
        self, task: Callable[Concatenate[Context, P, K], Coroutine[Any, Any, R]], payload: P, **options: Unpack[Says]
    ) -> TaskHandle[R]: ...
    @overload
    def submit(
        self, task: Callable[Concatenate[Context, P, K], R], payload: P, **options: Unpack[Says]
    ) -> TaskHandle[R]: ...
    @overload
    def submit(
        self, task: Callable[Concatenate[P, K], Coroutine[Any, Any, R]], payload: P, **options: Unpack[Says]
    ) -> TaskHandle[R]: ...
    @overload
    def submit(self, task: Callable[Concatenate[P, K], R], payload: P, **options: Unpack[Says]) -> TaskHandle[R]: ...
    @overload
    def submit(self, task: Callable[[Context], Coroutine[Any, Any, R]], **options: Unpack[Says]) -> TaskHandle[R]: ...
    @overload
    def submit(self, task: Callable[[Context], R], **options: Unpack[Says]) -> TaskHandle[R]: ...
    @overload
    def submit(self, task: Callable[[], Coroutine[Any, Any, R]], **options: Unpack[Says]) -> TaskHandle[R]: ...
    @overload
    def submit(self, task: Callable[[], R], **options: Unpack[Says]) -> TaskHandle[R]: ...
    def submit(self, task: Any, payload: Any = None, **options: Unpack[Says]) -> TaskHandle[Any]:
        """Submit a task of a handler's type, or of a type by name; returns a handle once it is committed.

        The request is sent again as long as that may help, and stores one task however often: it carries an idempotency
        key, of its own or the one given. Raises ApiError, ConnectionFailed, and TypeError or ValueError for options
        that there are not.
        """
        key = options.pop("idempotency_key", None)
        return self._submit(task, payload, options, key)

    @overload
    def submit_many(
        self, tasks: Iterable[Submission], /, *, idempotency_key: str | None = None
    ) -> list[TaskHandle[Any]]: ...
    @overload
    def submit_many(self, task: str, /, payloads: Iterable[Any], **options: Unpack[Says]) -> list[TaskHandle[Any]]: ...
    @overload
    def submit_many(
        self,
        task: Callable[Concatenate[list[Item[P]], K], Coroutine[Any, Any, list[R]]],
        /,
        payloads: Iterable[P],
        **options: Unpack[Says],
    ) -> list[TaskHandle[R]]: ...
    @overload
    def submit_many(
        self, task: Callable[Concatenate[list[Item[P]], K], list[R]], /, payloads: Iterable[P], **options: Unpack[Says]
    ) -> list[TaskHandle[R]]: ...
    @overload
    def submit_many(
        self, task: Callable[Concatenate[list[Item[P]], K], Any], /, payloads: Iterable[P], **options: Unpack[Says]
    ) -> list[TaskHandle[Any]]: ...
    @overload
    def submit_many(
        self,
        task: Callable[Concatenate[Context, P, K], Coroutine[Any, Any, R]],
        /,
        payloads: Iterable[P],
        **options: Unpack[Says],
    ) -> list[TaskHandle[R]]: ...
    @overload
    def submit_many(
        self, task: Callable[Concatenate[Context, P, K], R], /, payloads: Iterable[P], **options: Unpack[Says]
    ) -> list[TaskHandle[R]]: ...
    @overload
    def submit_many(
        self,
        task: Callable[Concatenate[P, K], Coroutine[Any, Any, R]],
        /,
        payloads: Iterable[P],
        **options: Unpack[Says],
    ) -> list[TaskHandle[R]]: ...
    @overload
    def submit_many(
        self, task: Callable[Concatenate[P, K], R], /, payloads: Iterable[P], **options: Unpack[Says]
    ) -> list[TaskHandle[R]]: ...
    def submit_many(self, task: Any, /, payloads: Any = None, **options: Unpack[Says]) -> list[TaskHandle[Any]]:
        """Submit a task of each payload, or each Submission, in order; returns their handles.

        As many as one request may have are stored together, all or none: up to 1,000 tasks and 16 MiB. More than that
        are several requests, each stored whole; calling again with the same ``idempotency_key`` after an error stores
        what was left. Raises as ``submit``.
        """
        key = options.pop("idempotency_key", None)
        many = task if payloads is None else operations.of_one_type(task, payloads, options)
        return self._submit_many(many, key)


class AsyncSubmits:
    """What ``AsyncClient`` has of it."""

    async def _submit(self, task: Named, payload: Any, options: Options, key: str | None) -> AsyncTaskHandle[Any]:
        raise NotImplementedError

    async def _submit_many(self, submissions: Iterable[Submission], key: str | None) -> list[AsyncTaskHandle[Any]]:
        raise NotImplementedError

    @overload
    async def submit(self, task: str, payload: Any = None, **options: Unpack[Says]) -> AsyncTaskHandle[Any]: ...
    @overload
    async def submit(
        self,
        task: Callable[Concatenate[list[Item[P]], K], Coroutine[Any, Any, list[R]]],
        payload: P,
        **options: Unpack[Says],
    ) -> AsyncTaskHandle[R]: ...
    @overload
    async def submit(
        self, task: Callable[Concatenate[list[Item[P]], K], list[R]], payload: P, **options: Unpack[Says]
    ) -> AsyncTaskHandle[R]: ...
    @overload
    async def submit(
        self, task: Callable[Concatenate[list[Item[P]], K], Any], payload: P, **options: Unpack[Says]
    ) -> AsyncTaskHandle[Any]: ...
    @overload
    async def submit(
        self, task: Callable[Concatenate[Context, P, K], Coroutine[Any, Any, R]], payload: P, **options: Unpack[Says]
    ) -> AsyncTaskHandle[R]: ...
    @overload
    async def submit(
        self, task: Callable[Concatenate[Context, P, K], R], payload: P, **options: Unpack[Says]
    ) -> AsyncTaskHandle[R]: ...
    @overload
    async def submit(
        self, task: Callable[Concatenate[P, K], Coroutine[Any, Any, R]], payload: P, **options: Unpack[Says]
    ) -> AsyncTaskHandle[R]: ...
    @overload
    async def submit(
        self, task: Callable[Concatenate[P, K], R], payload: P, **options: Unpack[Says]
    ) -> AsyncTaskHandle[R]: ...
    @overload
    async def submit(
        self, task: Callable[[Context], Coroutine[Any, Any, R]], **options: Unpack[Says]
    ) -> AsyncTaskHandle[R]: ...
    @overload
    async def submit(self, task: Callable[[Context], R], **options: Unpack[Says]) -> AsyncTaskHandle[R]: ...
    @overload
    async def submit(
        self, task: Callable[[], Coroutine[Any, Any, R]], **options: Unpack[Says]
    ) -> AsyncTaskHandle[R]: ...
    @overload
    async def submit(self, task: Callable[[], R], **options: Unpack[Says]) -> AsyncTaskHandle[R]: ...
    async def submit(self, task: Any, payload: Any = None, **options: Unpack[Says]) -> AsyncTaskHandle[Any]:
        """Submit a task of a handler's type, or of a type by name; returns a handle once it is committed.

        The request is sent again as long as that may help, and stores one task however often: it carries an idempotency
        key, of its own or the one given. Raises ApiError, ConnectionFailed, and TypeError or ValueError for options
        that there are not.
        """
        key = options.pop("idempotency_key", None)
        return await self._submit(task, payload, options, key)

    @overload
    async def submit_many(
        self, tasks: Iterable[Submission], /, *, idempotency_key: str | None = None
    ) -> list[AsyncTaskHandle[Any]]: ...
    @overload
    async def submit_many(
        self, task: str, /, payloads: Iterable[Any], **options: Unpack[Says]
    ) -> list[AsyncTaskHandle[Any]]: ...
    @overload
    async def submit_many(
        self,
        task: Callable[Concatenate[list[Item[P]], K], Coroutine[Any, Any, list[R]]],
        /,
        payloads: Iterable[P],
        **options: Unpack[Says],
    ) -> list[AsyncTaskHandle[R]]: ...
    @overload
    async def submit_many(
        self, task: Callable[Concatenate[list[Item[P]], K], list[R]], /, payloads: Iterable[P], **options: Unpack[Says]
    ) -> list[AsyncTaskHandle[R]]: ...
    @overload
    async def submit_many(
        self, task: Callable[Concatenate[list[Item[P]], K], Any], /, payloads: Iterable[P], **options: Unpack[Says]
    ) -> list[AsyncTaskHandle[Any]]: ...
    @overload
    async def submit_many(
        self,
        task: Callable[Concatenate[Context, P, K], Coroutine[Any, Any, R]],
        /,
        payloads: Iterable[P],
        **options: Unpack[Says],
    ) -> list[AsyncTaskHandle[R]]: ...
    @overload
    async def submit_many(
        self, task: Callable[Concatenate[Context, P, K], R], /, payloads: Iterable[P], **options: Unpack[Says]
    ) -> list[AsyncTaskHandle[R]]: ...
    @overload
    async def submit_many(
        self,
        task: Callable[Concatenate[P, K], Coroutine[Any, Any, R]],
        /,
        payloads: Iterable[P],
        **options: Unpack[Says],
    ) -> list[AsyncTaskHandle[R]]: ...
    @overload
    async def submit_many(
        self, task: Callable[Concatenate[P, K], R], /, payloads: Iterable[P], **options: Unpack[Says]
    ) -> list[AsyncTaskHandle[R]]: ...
    async def submit_many(
        self, task: Any, /, payloads: Any = None, **options: Unpack[Says]
    ) -> list[AsyncTaskHandle[Any]]:
        """Submit a task of each payload, or each Submission, in order; returns their handles.

        As many as one request may have are stored together, all or none: up to 1,000 tasks and 16 MiB. More than that
        are several requests, each stored whole; calling again with the same ``idempotency_key`` after an error stores
        what was left. Raises as ``submit``.
        """
        key = options.pop("idempotency_key", None)
        many = task if payloads is None else operations.of_one_type(task, payloads, options)
        return await self._submit_many(many, key)
