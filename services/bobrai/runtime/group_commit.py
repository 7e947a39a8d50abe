"""Group commit: many callers, one statement.

In: items from concurrent callers, each of whom awaits its own answer. Out: one flush call per batch. A flusher takes
all that waits while the previous flush is under way. Alone, an item is written at once (no timer, no added latency);
under load, batches form by themselves.
"""

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar, cast

from bobrai.domain.errors import DatabaseUnavailable, StoreRejected, Unavailable
from bobrai.telemetry import metrics

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class GroupCommit(Generic[Item, Answer]):
    """Collects items and flushes them together, at most ``max_batch`` at a time.

    ``flush`` takes the items and returns one answer per item, in order. When PostgreSQL refuses a batch for what may be
    the fault of one of its rows, the items are flushed one by one, so that a bad one fails alone. Any other error goes
    to every caller of the batch. ``weight`` says how many of ``max_batch`` an item takes. ``repeatable``: writing twice
    does no harm, so that a batch without an answer may be split as well.
    """

    def __init__(
        self,
        name: str,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        max_batch: int = 1000,
        max_waiting: int = 100_000,
        parallel: int = 1,
        weight: Callable[[Item], int] | None = None,
        repeatable: bool = False,
    ) -> None:
        self._flush = flush
        self._repeatable = repeatable
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._parallel = parallel
        self._weight = weight
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._flushers: set[asyncio.Task[None]] = set()
        self._size = metrics.BATCH_SIZE.labels(name)
        self._seconds = metrics.BATCH_SECONDS.labels(name)
        self._failures = metrics.BATCH_FAILURES.labels(name)

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Queue an item and return the future of its answer.

        Raises Unavailable when so much waits that an answer in time is impossible.
        """
        if len(self._waiting) >= self._max_waiting:
            raise Unavailable("too many writes are waiting")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, future))
        if len(self._flushers) < self._parallel:
            # In a context of its own: what it logs belongs to many callers, not to the first one.
            self._flushers.add(loop.create_task(self._drain(), context=contextvars.Context()))
        return future

    async def idle(self) -> None:
        """Return once everything that was queued has its answer."""
        while self._flushers:
            await asyncio.wait(self._flushers)

    def _take(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        room = self._max_batch
        while self._waiting and room > 0:
            item, future = self._waiting[0]
            weight = 1 if self._weight is None else self._weight(item)
            if batch and weight > room:
                break
            self._waiting.popleft()
            if not future.cancelled():  # a caller that gave up before its flush wants nothing written
                room -= weight
                batch.append((item, future))
        return batch

    async def _drain(self) -> None:
        try:
            while batch := self._take():
                started = time.perf_counter()
                await self._write(batch)
                self._seconds.observe(time.perf_counter() - started)
                self._size.observe(len(batch))
        finally:
            # In the same step as the last look: an item that comes after it must find no flusher, and start one.
            self._flushers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _write(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._flush([item for item, _ in batch])
            answered = list(zip(batch, answers, strict=True))
        except Exception as error:  # noqa: BLE001 - every caller must hear of it, whatever it is
            self._failures.inc()
            if len(batch) == 1 or not self._may_be_split(error):
                _fail(batch, error)
                return
            for pair in batch:
                await self._write([pair])
        else:
            for (_, future), answer in answered:
                if not future.done():
                    future.set_result(answer)

    def _may_be_split(self, error: Exception) -> bool:
        if isinstance(error, DatabaseUnavailable):
            # Without an answer it may have been written.
            return error.perhaps_one_row and (self._repeatable or bool(error.sqlstate))
        return isinstance(error, StoreRejected)


def _fail(batch: Sequence[tuple[object, asyncio.Future[Answer]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
