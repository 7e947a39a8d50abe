"""The client for threads: operations on a pool of connections that all threads share.

In: calls. Out: answers, after as many tries as it takes. A process that is forked gets a pool of its own with its first
call, and never touches the connections of its parent.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from typing import Any, Generic, Self, TypeVar

import httpx

from bobrai.client import connecting, models, operations
from bobrai.client.bases import ClientBase, HandleBase
from bobrai.client.exchange import Answer, Pause, Request, exchange
from bobrai.client.operations import Accepted, Flow
from bobrai.client.resources import Resources
from bobrai.client.submits import Submits
from bobrai.domain.submitting import Named, Options, Submission

R_co = TypeVar("R_co", covariant=True)
Value = TypeVar("Value")


class TaskHandle(HandleBase, Generic[R_co]):
    """A task by its id: nothing is asked before a method is called; what was submitted knows its result's type."""

    __slots__ = ()

    _client: Client

    def read(self) -> models.Task:
        """Return the task as it is now; raises TaskNotFound."""
        return self._client._run(operations.read(self.id))  # noqa: SLF001

    def status(self) -> str:
        """Return its status: pending, processing, done, failed or cancelled."""
        return self.read().status

    def result(self, timeout: float | None = None) -> R_co:
        """Wait until the task has ended, at most so many seconds, and return its result.

        Submitted by its handler, it is what the handler's annotation says. Raises TaskFailed with the errors of its
        attempts, TaskCancelled, WaitTimeout, and BadResult for a result that is something else.
        """
        found: R_co = self._client._run(operations.result(self.id, self._result, timeout))  # noqa: SLF001
        return found

    def wait(self, timeout: float | None = None) -> models.Task:
        """Wait until the task has ended, at most so many seconds, and return it; raises WaitTimeout."""
        return self._client._run(operations.ended(self.id, timeout))  # noqa: SLF001

    def explain(self) -> models.Explanation:
        """Return why the task is where it is, and what would help."""
        return self._client._run(operations.get(f"/tasks/{self.id}/explain", models.Explanation))  # noqa: SLF001

    def cancel(self) -> models.Task:
        """Cancel the task, or ask its worker to stop; raises WrongStatus when it has ended otherwise."""
        return self._client._run(operations.cancel(self.id))  # noqa: SLF001

    def replay(self) -> models.Task:
        """Give the task, which has ended, a fresh set of attempts; raises WrongStatus when it has not."""
        return self._client._run(operations.replay(self.id))  # noqa: SLF001


class Client(Submits, Resources, ClientBase):
    """A client of the HTTP API, for any number of threads; a child after a fork has connections of its own."""

    def _is_own(self) -> bool:
        return self._owner == (os.getpid(),)

    def _connections(self) -> httpx.Client:
        if self._is_own() and self._pool is not None:
            return self._pool  # type: ignore[no-any-return]
        if self._closed:
            raise RuntimeError("this client is closed")
        if not self._is_own():
            # A thread of the parent may have held it at the fork.
            self._lock = threading.Lock() if self._owner else self._lock
        with self._lock:
            if not self._is_own() or self._pool is None:
                if self._pool is not None:
                    self._left.append(self._pool)
                self._pool = httpx.Client(**self._target.pool())
                self._owner = (os.getpid(),)
            return self._pool  # type: ignore[no-any-return]

    def task(self, task_id: int) -> TaskHandle[Any]:
        """Return a handle on a task; nothing is asked yet."""
        return TaskHandle(self, task_id)

    def close(self) -> None:
        """Close the connections; nothing can be asked any more."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None and self._is_own():
            pool.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close it."""
        self.close()

    def _submit(self, task: Named, payload: Any, options: Options, key: str | None) -> TaskHandle[Any]:
        return self._handle(self._run(operations.submit(task, payload, options, key)))

    def _submit_many(self, submissions: Iterable[Submission], key: str | None) -> list[TaskHandle[Any]]:
        return [self._handle(each) for each in self._run(operations.submit_many(submissions, key))]

    def _handle(self, accepted: Accepted) -> TaskHandle[Any]:
        return TaskHandle(self, accepted.task_id, accepted)

    def _run(self, flow: Flow[Value]) -> Value:
        try:
            request = next(flow)
            while True:
                request = flow.send(self._exchange(request))
        except StopIteration as end:
            value: Value = end.value
            return value

    def _exchange(self, request: Request) -> Answer:
        steps = exchange(request, self._target.patience)
        step = next(steps)
        try:
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    response = self._connections().request(**self._target.request(request, step))
                except httpx.HTTPError as error:
                    step = steps.throw(connecting.failure(error, self._target))
                else:
                    step = steps.send(connecting.answer(response))
        except StopIteration as end:
            answer: Answer = end.value
            return answer
