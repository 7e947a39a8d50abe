"""Finds due tasks that nothing holds, should the broker ever lose its messages, and gives them a new outbox row.

In: queues that the broker says are empty and the outbox has nothing due for. Out: outbox rows; the relay does the
rest. In normal operation it finds nothing: a task counts as lost only when two rounds in a row see the same attempt
waiting, so that a hint in a worker's hands is not mistaken for one.
"""

from bobrai.broker.port import Broker
from bobrai.dispatcher import meters
from bobrai.domain.message import Hint
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.loop import PeriodicLoop
from bobrai.settings import Settings
from bobrai.store import outbox, queues
from bobrai.store.pool import Database
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

BATCH = 10_000  # per queue and round


class Sweeper:
    """Looks at every running queue."""

    def __init__(self, settings: Settings, database: Database, broker: Broker) -> None:
        self._grace_seconds = settings.dispatcher.sweep_grace_seconds
        self._database = database
        self._broker = broker
        self._suspects: dict[str, set[Hint]] = {}
        self._loop = PeriodicLoop("sweeper", settings.dispatcher.sweep_seconds, self.run_once)

    async def run(self, stop: Stop) -> None:
        """Sweep until the process stops."""
        await self._loop.run(stop)

    async def run_once(self) -> None:
        """Do one round; raises DatabaseUnavailable or BrokerUnavailable."""
        before, self._suspects = self._suspects, {}
        if not self._broker.connected:
            return
        for queue in await queues.running(self._database):
            suspects = await self._unheld(queue)
            lost = suspects & before.get(queue, set())
            if lost:
                swept = await outbox.sweep(self._database, lost)
                meters.of(queue).swept.inc(swept)
                log.warning("tasks.swept", queue=queue, tasks=swept)
            if suspects - lost:
                self._suspects[queue] = suspects - lost

    async def _unheld(self, queue: str) -> set[Hint]:
        # The outbox first: what leaves it after this look is in the queue before the next one.
        if await outbox.due_waits(self._database, queue) or await self._broker.depth(queue) > 0:
            return set()
        return await outbox.unheld(self._database, queue, self._grace_seconds, BATCH)
