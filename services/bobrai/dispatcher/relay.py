"""Outbox rows become messages: the only place in bobrAI that publishes tasks.

In: due hints, when NOTIFY, a due time or the safety poll wakes it. Out: bundles in RabbitMQ, confirmed before the rows'
removal is committed; a crash in between publishes them again, which the workers' claims make harmless. While the
broker is away no row is touched. Next: the worker's consumer.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from bobrai.broker.port import Broker, OutgoingMessage
from bobrai.dispatcher import meters
from bobrai.dispatcher.admission import Admission
from bobrai.dispatcher.bundles import bundle_size, bundles
from bobrai.dispatcher.fleet import Fleet
from bobrai.dispatcher.window import Window
from bobrai.domain.errors import BrokerUnavailable, DatabaseUnavailable
from bobrai.domain.message import Hint
from bobrai.runtime.checkpoint import checkpoint
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.loop import PeriodicLoop
from bobrai.settings import Settings
from bobrai.store import admissions, outbox
from bobrai.store.outbox import DueHint
from bobrai.store.pool import Database, Executor
from bobrai.telemetry import logs, traces
from bobrai.telemetry.spans import PublishSpan

log = logs.get_logger(__name__)

LONGEST_PAUSE_SECONDS: Final = 2.0  # after a failure: every task waits for this loop
BUSY_SECONDS: Final = 0.01  # until the next look at due rows that another dispatcher has locked just now

REST_SECONDS: Final = 0.02  # between rounds under load, for hints to gather: a round costs the same for one as for many
REST_FROM: Final = 8  # hints in one round that mean load; what comes more slowly is relayed at once


class _NothingConfirmed(Exception):
    """Every row of the round stays where it was: undo their removal instead of writing all of them again."""


class Relay:
    """Moves due hints from the outbox to the broker, round by round."""

    def __init__(self, settings: Settings, database: Database, broker: Broker) -> None:
        self._least_window = settings.dispatcher.window
        self._batch_size = settings.dispatcher.batch_size
        self._link_after_seconds = settings.trace.link_after_seconds
        self._poll_seconds = settings.dispatcher.poll_seconds
        self._database = database
        self._broker = broker
        self._fleet = Fleet(database)
        self._admission = Admission(database, broker, self._fleet)
        self._windows: dict[str, Window] = {}
        self._used: set[str] = set()
        self._turn = 0
        self._resting_until = 0.0
        self._loop = PeriodicLoop(
            "relay", self._poll_seconds, self.run_once, longest_pause_seconds=LONGEST_PAUSE_SECONDS
        )
        self._connecting: asyncio.Task[None] | None = None
        self._was_away = False
        self._relayed = False

    def wake(self) -> None:
        """Look for due rows now."""
        self._loop.wake()

    def take_used(self) -> set[str]:
        """Return the queues from which hints were taken since the last call."""
        used, self._used = self._used, set()
        return used

    @property
    def relaying(self) -> bool:
        """Whether the broker is connected and the last round went well."""
        return self._relayed and self._loop.healthy and self._broker.connected

    async def run(self, stop: Stop) -> None:
        """Relay until the process stops; the round under way is finished."""
        try:
            await self._loop.run(stop)
        finally:
            if self._connecting is not None:
                self._connecting.cancel()

    async def run_once(self) -> float:
        """Do one round and return the seconds until the next one.

        Raises DatabaseUnavailable or BrokerUnavailable; then what was not confirmed is still in the outbox.
        """
        if not self._broker.connected:
            self._wake_once_connected()
            return self._poll_seconds
        if self._was_away:
            self._was_away = False
            for window in self._windows.values():
                window.reopen()
        if not self._fleet.queues:
            await self._refresh()
        if (rest := self._resting_until - time.monotonic()) > 0:
            await asyncio.sleep(rest)
        rooms = await self._rooms()
        more = bool(rooms) and await self._move(rooms)
        undecided = await self._let_through()
        if self._fleet.stale:
            await self._refresh()
        self._relayed = True
        return 0.0 if more else min(undecided, await self._pause())

    async def _refresh(self) -> None:
        """Read again which queues there are, and leave nothing behind of those that are gone."""
        await self._fleet.refresh()
        for queue in self._windows.keys() - self._fleet.known:
            del self._windows[queue]
            self._broker.forget(queue)
            meters.forget(queue)

    def _wake_once_connected(self) -> None:
        self._was_away = True

        async def wake() -> None:
            await self._broker.wait_connected()
            self.wake()

        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(wake(), name="relay-waits-for-broker")

    # --- how much may go out ---------------------------------------------------------------------------------------

    async def _rooms(self) -> dict[str, int]:
        """Return the room of every queue that has some; each round begins with another queue, so that none waits."""
        names = self._fleet.queues
        self._turn += 1
        start = self._turn % len(names) if names else 0
        windows = {name: self._windows.setdefault(name, Window()) for name in (*names[start:], *names[:start])}
        for name, window in windows.items():
            meters.of(name)
            window.fit(self._least_window, self._fleet.crew(name))
        # What is due in limited queues goes to lanes, of which the admission decides.
        windows = {name: window for name, window in windows.items() if name not in self._fleet.limited.queues}
        unsure = [name for name, window in windows.items() if window.should_look()]
        failures = [failure for failure in await asyncio.gather(*map(self._look, unsure)) if failure]
        rooms = {name: room for name, window in windows.items() if (room := min(window.room(), self._batch_size)) > 0}
        if failures and not rooms:
            raise failures[0]
        return rooms

    async def _look(self, queue: str) -> BrokerUnavailable | None:
        try:
            self._windows[queue].saw(await self._broker.depth(queue))
        except BrokerUnavailable as error:
            self._leave_alone(queue, str(error))
            return error
        return None

    def _leave_alone(self, queue: str, reason: str) -> None:
        """One queue's trouble must not hold up the others."""
        if self._windows[queue].close():
            log.warning("relay.queue_closed", queue=queue, reason=reason)

    async def _pause(self) -> float:
        """Return how long nothing can be done, unless something is woken before."""
        due_in = await outbox.next_due(self._database)
        if due_in is None:
            return self._poll_seconds
        if due_in > 0:
            return min(due_in, self._poll_seconds)
        # Something is due and could not be taken: its window is full, another dispatcher holds it, or its queue is new.
        windows = [window for name in self._fleet.queues if (window := self._windows.get(name)) and not window.room()]
        if not windows:
            await self._refresh()
        return min((window.next_look_seconds() for window in windows), default=BUSY_SECONDS)

    # --- the round -------------------------------------------------------------------------------------------------

    async def _move(self, rooms: dict[str, int]) -> bool:
        """Move due hints to the broker; returns whether more may be due for which there is room."""
        failures: list[BrokerUnavailable] = []
        taken: list[DueHint] = []
        try:
            async with self._database.repeatable() as transaction:
                taken = await outbox.take_due(transaction, rooms, self._batch_size)
                if taken:
                    checkpoint("relay.taken")
                if free := await self._without_held(transaction, taken):
                    unconfirmed = await self._publish(free, failures)
                    checkpoint("relay.published")
                    if len(unconfirmed) == len(free):
                        raise _NothingConfirmed
                    if unconfirmed:
                        await outbox.return_hints(transaction, unconfirmed)
        except _NothingConfirmed:
            if failures:
                raise failures[0] from None
        more = self._note_backlog(taken, rooms)
        busy = len(taken) >= REST_FROM and not more
        self._resting_until = time.monotonic() + REST_SECONDS if busy else 0.0
        return more

    async def _without_held(self, transaction: Executor, taken: list[DueHint]) -> list[DueHint]:
        """Put what is of a limited type into its lane, and return the rest."""
        if not self._fleet.limited.types or not taken:
            return taken
        held = await admissions.hold(transaction, taken)
        return [due for due in taken if due.task_id not in held]

    async def _let_through(self) -> float:
        """Publish what limits let through; returns the seconds until they may let more through."""
        queues = [name for name in self._fleet.queues if not self._windows[name].is_closed]
        decided = await self._admission.decide(queues)
        if decided.hints:
            failures: list[BrokerUnavailable] = []
            unconfirmed = {
                due.task_id for due in await self._publish(sorted(decided.hints, key=outbox.urgency), failures)
            }
            self._admission.confirmed([due.task_id for due in decided.hints if due.task_id not in unconfirmed])
            if failures:
                raise failures[0]
        return decided.pause_seconds

    def _note_backlog(self, taken: Sequence[DueHint], rooms: dict[str, int]) -> bool:
        cut_off = len(taken) >= self._batch_size
        counts = {queue: len(list(hints)) for queue, hints in groupby(taken, key=lambda due: due.queue)}
        self._used.update(counts)
        for queue, room in rooms.items():
            count = counts.get(queue, 0)
            if count >= room or not cut_off:  # a queue whose turn did not come says nothing
                self._windows[queue].backlogged = count >= room
        return cut_off or any(self._windows[queue].backlogged and self._windows[queue].room() for queue in rooms)

    async def _publish(self, taken: Sequence[DueHint], failures: list[BrokerUnavailable]) -> list[DueHint]:
        """Publish all queues at once and return what was not confirmed; an outage is also added to ``failures``."""
        by_queue = [(queue, list(due)) for queue, due in groupby(taken, key=lambda due: due.queue)]
        unconfirmed = await asyncio.gather(*(self._publish_queue(queue, due, failures) for queue, due in by_queue))
        return [due for of_queue in unconfirmed for due in of_queue]

    async def _publish_queue(
        self, queue: str, due: Sequence[DueHint], failures: list[BrokerUnavailable]
    ) -> Sequence[DueHint]:
        meter = meters.of(queue)
        chunks = list(bundles(due, bundle_size(len(due), self._fleet.crew(queue))))
        messages = [OutgoingMessage([Hint(hint[0], hint[1]) for hint in chunk], chunk[0].priority) for chunk in chunks]
        span = await self._span(queue, due, len(messages)) if traces.on else None
        started = time.perf_counter()
        try:
            confirms = await self._broker.publish(queue, messages)
        except BrokerUnavailable as error:
            if span is not None:
                span.end(confirmed=0, refused=0, error=type(error).__name__)
            meter.unknown.inc(len(messages))
            failures.append(error)
            self._leave_alone(queue, str(error))
            return due
        took = time.perf_counter() - started
        if span is not None:
            span.end(confirmed=sum(confirms), refused=len(messages) - sum(confirms))
        meter.publish.observe(took)
        refused: list[DueHint] = []
        for chunk, confirmed in zip(chunks, confirms, strict=True):
            if confirmed:
                meter.bundle.observe(len(chunk))
                meter.lag.observe(chunk[0].waited_seconds + took)
            else:
                refused += chunk
        window = self._windows[queue]
        window.published(len(due) - len(refused), sum(confirms))
        meter.relayed.inc(len(due) - len(refused))
        meter.confirmed.inc(sum(confirms))
        if refused:
            meter.refused_hints.inc(len(refused))
            meter.refused.inc(len(messages) - sum(confirms))
            self._leave_alone(queue, "the broker refused a message: the queue is at its maximum length")
        else:
            window.accepted()
        return refused

    async def _span(self, queue: str, due: Sequence[DueHint], messages: int) -> PublishSpan | None:
        try:
            origins = await outbox.origins(self._database, [hint.task_id for hint in due])
        except DatabaseUnavailable:
            return None  # the transaction that took the hints will say so
        retried = any(hint.attempt for hint in due)
        return traces.publish(queue, origins, len(due), messages, -1.0 if retried else self._link_after_seconds)
