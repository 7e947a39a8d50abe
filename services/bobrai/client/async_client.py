"""The client for coroutines: operations on a pool of connections of one event loop.

In: calls. Out: answers, after as many tries as it takes. A process that is forked, and the loop after one that is
closed, get a pool of their own with their first call.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any, Generic, Self, TypeVar

import httpx

from bobrai.client import connecting, models, operations
from bobrai.client.bases import ClientBase, HandleBase
from bobrai.client.exchange import Answer, Pause, Request, exchange
from bobrai.client.operations import Accepted, Flow
from bobrai.client.resources import AsyncResources
from bobrai.client.submits import AsyncSubmits
from bobrai.domain.submitting import Named, Options, Submission

R_co = TypeVar("R_co", covariant=True)
Value = TypeVar("Value")


class AsyncTaskHandle(HandleBase, Generic[R_co]):
    """A task by its id: nothing is asked before a method is called; what was submitted knows its result's type."""

    __slots__ = ()

    _client: AsyncClient

    async def read(self) -> models.Task:
        """Return the task as it is now; raises TaskNotFound."""
        return await self._client._run(operations.read(self.id))  # noqa: SLF001

    async def status(self) -> str:
        """Return its status: pending, processing, done, failed or cancelled."""
        return (await self.read()).status

    async def result(self, timeout: float | None = None) -> R_co:
        """Wait until the task has ended, at most so many seconds, and return its result.

        Submitted by its handler, it is what the handler's annotation says. Raises TaskFailed with the errors of its
        attempts, TaskCancelled, WaitTimeout, and BadResult for a result that is something else.
        """
        found: R_co = await self._client._run(operations.result(self.id, self._result, timeout))  # noqa: SLF001
        return found

    async def wait(self, timeout: float | None = None) -> models.Task:
        """Wait until the task has ended, at most so many seconds, and return it; raises WaitTimeout."""
        return await self._client._run(operations.ended(self.id, timeout))  # noqa: SLF001

    async def explain(self) -> models.Explanation:
        """Return why the task is where it is, and what would help."""
        return await self._client._run(operations.get(f"/tasks/{self.id}/explain", models.Explanation))  # noqa: SLF001

    async def cancel(self) -> models.Task:
        """Cancel the task, or ask its worker to stop; raises WrongStatus when it has ended otherwise."""
        return await self._client._run(operations.cancel(self.id))  # noqa: SLF001

    async def replay(self) -> models.Task:
        """Give the task, which has ended, a fresh set of attempts; raises WrongStatus when it has not."""
        return await self._client._run(operations.replay(self.id))  # noqa: SLF001


class AsyncClient(AsyncSubmits, AsyncResources, ClientBase):
    """A client of the HTTP API, for coroutines of one event loop; a child after a fork has connections of its own."""

    def _is_own(self) -> bool:
        return self._owner == (os.getpid(), asyncio.get_running_loop())

    def _connections(self) -> httpx.AsyncClient:
        if self._pool is not None and self._is_own():
            return self._pool  # type: ignore[no-any-return]
        if self._closed:
            raise RuntimeError("this client is closed")
        if self._pool is not None:
            process, loop = self._owner
            if process == os.getpid() and not loop.is_closed():
                raise RuntimeError("an AsyncClient belongs to the event loop of its first call: make one for each loop")
            self._left.append(self._pool)
        self._pool = httpx.AsyncClient(**self._target.pool())
        self._owner = (os.getpid(), asyncio.get_running_loop())
        return self._pool  # type: ignore[no-any-return]

    def task(self, task_id: int) -> AsyncTaskHandle[Any]:
        """Return a handle on a task; nothing is asked yet."""
        return AsyncTaskHandle(self, task_id)

    async def close(self) -> None:
        """Close the connections; nothing can be asked any more."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None and self._is_own():
            await pool.aclose()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close it."""
        await self.close()

    async def _submit(self, task: Named, payload: Any, options: Options, key: str | None) -> AsyncTaskHandle[Any]:
        return self._handle(await self._run(operations.submit(task, payload, options, key)))

    async def _submit_many(self, submissions: Iterable[Submission], key: str | None) -> list[AsyncTaskHandle[Any]]:
        return [self._handle(each) for each in await self._run(operations.submit_many(submissions, key))]

    def _handle(self, accepted: Accepted) -> AsyncTaskHandle[Any]:
        return AsyncTaskHandle(self, accepted.task_id, accepted)

    async def _run(self, flow: Flow[Value]) -> Value:
        try:
            request = next(flow)
            while True:
                request = flow.send(await self._exchange(request))
        except StopIteration as end:
            value: Value = end.value
            return value

    async def _exchange(self, request: Request) -> Answer:
        steps = exchange(request, self._target.patience)
        step = next(steps)
        try:
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    response = await self._connections().request(**self._target.request(request, step))
                except httpx.HTTPError as error:
                    step = steps.throw(connecting.failure(error, self._target))
                else:
                    step = steps.send(connecting.answer(response))
        except StopIteration as end:
            answer: Answer = end.value
            return answer
