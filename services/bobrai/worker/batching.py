"""One call of a handler for many attempts of its type.

In: attempts, each in its slot and under its own timer. Out: how each ended. They meet here: a group is called when it
is full, when its first member has waited long enough, or when nothing more can come. One that is told to end leaves
its group, and the others go on; only when all have left is the call told to end as well.
"""

import asyncio
import contextvars
import json
from collections.abc import Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from pydantic_core import from_json

from bobrai.domain import pointer
from bobrai.domain.batch import Batch
from bobrai.handlers.batches import Item
from bobrai.handlers.codec import InvalidResult
from bobrai.handlers.handler import Handler
from bobrai.runtime import event_loop, forks
from bobrai.telemetry import logs, metrics
from bobrai.worker.attempt import Attempt
from bobrai.worker.threads import Ended, HandlerThreads

log = logs.get_logger(__name__)


class _Group:
    """The members of one call: before it the open group of a handler and key, then those that still wait for it."""

    __slots__ = ("due_at", "handler", "key", "members", "task", "timer", "traceback")

    def __init__(self, handler: Handler, key: str | None) -> None:
        self.handler = handler
        self.key = key
        self.members: dict[Item[Any], asyncio.Future[Ended]] = {}
        self.task: asyncio.Task[None] | None = None  # None: it is not called yet
        self.timer: asyncio.TimerHandle | None = None
        self.due_at = float("inf")
        self.traceback: TracebackType | None = None  # of what the call has raised, as long as it has members


class Batches:
    """The groups of a worker with so many slots, in which all their members are."""

    def __init__(self, threads: HandlerThreads, slots: int) -> None:
        self._threads = threads
        self._slots = slots
        self._open: dict[tuple[Handler, str | None], _Group] = {}
        self._waiting = 0  # in open groups
        self._calls: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()  # a call belongs to none of its members

    async def join(self, attempt: Attempt, batch: Batch, payload: Any) -> Ended:
        """Let the attempt be part of a call, and return how it ended for this one; a cancel is raised."""
        item = Item(attempt.context, payload)
        group = self._group_of(attempt.handler, _key(batch, attempt.claim.payload))
        future: asyncio.Future[Ended] = self._loop.create_future()
        group.members[item] = future
        self._waiting += 1
        if len(group.members) >= batch.size:
            self._call(group)
        elif self._waiting >= self._slots:  # every slot is taken by what waits here
            self.flush()
        else:  # what has little time left must not spend it on waiting
            self._call_in(group, min(batch.wait_seconds, item.remaining_seconds / 2))
        try:
            ended = await future
        except asyncio.CancelledError:
            await self._leave(group, item)
            raise
        if ended.error is not None and item.marked is None:  # one exception for all: without the ways of the others
            ended.error.__traceback__ = group.traceback
        del group.members[item]
        if not group.members:
            group.traceback = None  # it leads back to the group
        return ended

    def flush(self) -> None:
        """Call what waits for more."""
        for group in list(self._open.values()):
            self._call(group)

    def close(self) -> None:
        """Let go of calls that do not end: the event loop must not wait for them."""
        for task in self._calls:
            event_loop.forget(task)

    def _group_of(self, handler: Handler, key: str | None) -> _Group:
        group = self._open.get((handler, key))
        if group is None:
            group = self._open[handler, key] = _Group(handler, key)
        return group

    def _call_in(self, group: _Group, seconds: float) -> None:
        due_at = self._loop.time() + seconds
        if due_at >= group.due_at:
            return
        if group.timer is not None:
            group.timer.cancel()
        group.due_at = due_at
        group.timer = self._loop.call_at(due_at, self._call, group, context=self._context)

    def _close(self, group: _Group) -> None:
        """Let nobody join it any more."""
        del self._open[group.handler, group.key]
        if group.timer is not None:
            group.timer.cancel()

    def _call(self, group: _Group) -> None:
        self._close(group)
        self._waiting -= len(group.members)
        create = partial(self._loop.create_task, self._run(group), context=self._context.copy())
        # Not in the context of the handlers that wait for it, or it would be taken for a task of theirs.
        group.task = self._context.copy().run(create)
        self._calls.add(group.task)
        group.task.add_done_callback(self._calls.discard, context=self._context)

    async def _run(self, group: _Group) -> None:
        """Call the handler for those who have not left; whatever it raises is theirs."""
        items, handler = list(group.members), group.handler
        if not items:
            return
        name, count = handler.name, len(items)
        logs.carry(lambda: {"type": name, "items": count})
        metrics.HANDLER_BATCH_SIZE.labels(name).observe(count)
        event_loop.inside_handler.set(True)
        call = partial(handler.function, list(items), **handler.given)
        try:
            ended = Ended(await call(), None) if handler.is_async else await self._threads.run(call)
            forks.end_if_child(ended.error)
            if ended.error is None:
                ended = Ended(_one_for_each(items, ended.value), None)
        except BaseException as raised:  # noqa: BLE001 - also SystemExit, or a CancelledError of the handler's own
            forks.end_if_child(raised)
            ended = Ended(None, raised)
        event_loop.inside_handler.set(False)
        group.traceback = None if ended.error is None else ended.error.__traceback__
        for item, value in zip(items, ended.value if ended.error is None else [None] * count, strict=True):
            future = group.members.get(item)
            if future is not None and not future.done():
                future.set_result(Ended(value, item.marked or ended.error))
        del ended  # with its traceback an error leads back to this frame

    async def _leave(self, group: _Group, item: Item[Any]) -> None:
        """Go on without this one; the last one ends the call, and stays for as long as that takes."""
        item.leave()
        del group.members[item]
        if group.task is None:
            self._waiting -= 1
            if not group.members:
                self._close(group)
        elif not group.members and not group.task.done():
            if group.handler.is_async:
                group.task.cancel()
            await asyncio.wait({group.task})


def _key(batch: Batch, text: str) -> str | None:
    """Return the value at the batch's key as text; None when the payload has none."""
    if batch.key is None:
        return None
    try:
        return json.dumps(pointer.resolve(from_json(text), batch.key), sort_keys=True)
    except (LookupError, ValueError):
        return None


def _one_for_each(items: Sequence[Item[Any]], returned: Any) -> list[Any]:
    """Return a result for each item; raises InvalidResult."""
    if returned is None:
        return [None] * len(items)
    if not isinstance(returned, list | tuple):
        raise InvalidResult(f"the handler returned no list with one result for each of its {len(items)} items")
    values = list(returned)
    if len(values) != len(items):
        raise InvalidResult(f"the handler returned {len(values)} results for {len(items)} items")
    return values


def warn(handlers: Iterable[Handler], slots: int) -> None:
    """Log which types ask for more tasks in a call than can run at once."""
    for handler in handlers:
        if handler.batch is not None and handler.batch.size > slots:
            log.warning("worker.batches_smaller", type=handler.name, size=handler.batch.size, concurrency=slots)
