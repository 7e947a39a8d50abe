"""Counts what waits in every queue, for the API, for scaling and for the dashboards.

In: rows, and the broker's depths. Out: the figures in `queues`, and the gauges of those queues that this process
measured last: each queue belongs to one dispatcher, so that a sum over the replicas is right. A gauge goes out by
itself before another dispatcher may take its queue. The counting takes at most a small share of the time, however much
waits.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Final

from bobrai.broker.port import Broker
from bobrai.dispatcher import holding
from bobrai.dispatcher.fleet import NOBODY, Crew, crews
from bobrai.domain.errors import BrokerUnavailable, DatabaseUnavailable
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.loop import PeriodicLoop
from bobrai.settings import Settings
from bobrai.store import queues, workers
from bobrai.store.pool import Database, Record
from bobrai.telemetry import metrics

SHARE: Final = 0.02  # of the time, for each of the two counts
LONGEST_PERIOD_SECONDS: Final = 10.0  # for what is due, because scaling depends on it
TAKEOVER_PERIODS: Final = 3.0  # without figures from a queue's dispatcher, before another one takes the queue over
STATES: Final = ("due", "held", "delayed", "between_attempts", "processing")


class Measuring:
    """Measures the queues that no other dispatcher measures."""

    def __init__(self, settings: Settings, database: Database, broker: Broker) -> None:
        self._period = settings.dispatcher.measure_seconds
        self._due_period = self._waiting_period = self._period
        # A little less than the period, or a round that comes a millisecond early would skip a turn.
        self._early = self._period / 10
        self._database = database
        self._broker = broker
        self._own: dict[str, float] = {}  # queue -> when this process measured it, on the monotonic clock
        self._loop = PeriodicLoop("measuring", self._period, self.run_once)

    async def run(self, stop: Stop) -> None:
        """Measure until the process stops, then leave the queues to the others."""
        try:
            await self._loop.run(stop)
        finally:
            self._give_up(list(self._own))

    async def run_once(self) -> None:
        """Do one round; raises DatabaseUnavailable."""
        try:
            await self._round()
        except DatabaseUnavailable:
            metrics.CONNECTED.labels("database").set(0)
            raise
        metrics.CONNECTED.labels("database").set(1)

    async def _round(self) -> None:
        # Asking the broker for the depth of a queue that was removed would make it anew.
        live = await queues.live(self._database)
        self._give_up([queue for queue in self._own if queue not in live])
        depths = {queue: await self._depth(queue) for queue in self._own}
        now = time.monotonic()
        measured = await queues.measure(
            self._database,
            depths,
            period_seconds=self._due_period - self._early,
            takeover_periods=TAKEOVER_PERIODS,
            waiting_period_seconds=self._waiting_period - self._early,
            next_period=self._adapt,
            held=holding.held,
        )
        if measured.waiting_seconds is not None:
            self._waiting_period = max(self._period, measured.waiting_seconds / SHARE)
        if measured.rows:
            # The others take a queue over so many periods after this transaction began, which was later than ``now``:
            # whatever happens to this process, it shows the figures no longer than they are its own.
            until = now + TAKEOVER_PERIODS * measured.period_seconds
            living = crews(await workers.live(self._database))
            for row in measured.rows:
                self._own[row["name"]] = now
                _export(row, living.get(row["name"], NOBODY), until)
        # What was not this process's turn although it was time belongs to somebody else now.
        self._give_up([queue for queue, at in self._own.items() if now - at > self._due_period + self._period])

    async def _depth(self, queue: str) -> int | None:
        if not self._broker.connected:
            return None
        try:
            return await self._broker.depth(queue)
        except BrokerUnavailable:
            return None  # stored as unknown; the relay and the broker's link report the outage

    def _adapt(self, due_seconds: float) -> float:
        self._due_period = max(self._period, min(due_seconds / SHARE, LONGEST_PERIOD_SECONDS))
        return self._due_period - self._early

    def _give_up(self, names: Sequence[str]) -> None:
        for queue in names:
            del self._own[queue]
            for state in STATES:
                metrics.QUEUE_TASKS.remove(queue, state)
            for gauge in _GAUGES:
                gauge.remove(queue)


_GAUGES: Final = (
    metrics.QUEUE_OLDEST_DUE_SECONDS,
    metrics.QUEUE_OUTBOX_SECONDS,
    metrics.QUEUE_DEPTH,
    metrics.QUEUE_WORKERS,
    metrics.QUEUE_SLOTS,
    metrics.QUEUE_PAUSED,
)


def _export(row: Record | Mapping[str, int | float | None], crew: Crew, until: float) -> None:
    queue = (str(row["name"]),)
    for state in STATES:
        metrics.QUEUE_TASKS.set((*queue, state), row[state] or 0, until=until)
    # An unknown depth shows as "not a number", which no sum or comparison takes for an empty queue.
    depth = float("nan") if row["depth"] is None else row["depth"]
    figures = (
        max(row["oldest_due_age_seconds"] or 0.0, 0.0),
        max(row["outbox_lag_seconds"] or 0.0, 0.0),
        depth,
        crew.workers,
        crew.slots,
        int(row["paused"] or 0),
    )
    for gauge, figure in zip(_GAUGES, figures, strict=True):
        gauge.set(queue, figure, until=until)
