"""Keeps the lists of queues and types true: nothing that waits is without its queue, and nothing stays for ever.

In: rows of `queues`, `task_types` and `workers`, and which queues the relay took from. Out: queues that are back, as a
task came to them after their removal; queues that are gone in RabbitMQ too; and, after their retention, no rows of
queues and types that nobody uses. Next: the relay publishes what waits in a queue that is back.
"""

import time
from collections.abc import Callable
from typing import Final

from bobrai.broker.port import Broker
from bobrai.domain.errors import BrokerUnavailable
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.loop import PeriodicLoop
from bobrai.settings import Settings
from bobrai.store import queues, task_types
from bobrai.store.pool import Database
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

KEEP_SECONDS: Final = 1.0
RETIRE_SECONDS: Final = 60.0  # between two looks at what is past its retention
# Between a queue's removal and its end in RabbitMQ: longer than a publish of before may take, and than any dispatcher
# looks at a queue without having asked whether it is there. Either would declare it again.
GRACE_SECONDS: Final = 15.0


class Keeper:
    """Looks at all queues and types; ``take_used`` returns the queues that were used since it was asked before."""

    def __init__(
        self, settings: Settings, database: Database, broker: Broker, take_used: Callable[[], set[str]]
    ) -> None:
        self._queue_retention = settings.dispatcher.queue_retention_seconds
        self._type_retention = settings.dispatcher.type_retention_seconds
        self._database = database
        self._broker = broker
        self._take_used = take_used
        self._retires_at = float("-inf")
        self._undeleted: set[str] = set()  # told of
        self._loop = PeriodicLoop("keeper", KEEP_SECONDS, self.run_once)

    async def run(self, stop: Stop) -> None:
        """Keep until the process stops."""
        await self._loop.run(stop)

    async def run_once(self) -> None:
        """Do one round; raises DatabaseUnavailable."""
        if restored := await queues.restore(self._database):
            log.info("queues.restored", queues=restored)
        if used := self._take_used():
            await queues.touch(self._database, used)
        if time.monotonic() >= self._retires_at:
            await self._retire()
            self._retires_at = time.monotonic() + RETIRE_SECONDS
        await self._delete_removed()

    async def _retire(self) -> None:
        await task_types.touch(self._database)
        if self._queue_retention > 0:
            idle = await queues.remove_idle(self._database, retention_seconds=self._queue_retention)
            if idle:
                log.info("queues.idle", queues=idle)
        if self._type_retention > 0:
            forgotten = await task_types.forget(self._database, retention_seconds=self._type_retention)
            if forgotten:
                log.info("types.forgotten", types=forgotten)

    async def _delete_removed(self) -> None:
        failed: list[str] = []
        while self._broker.connected:
            async with self._database.transaction() as transaction:
                name = await queues.removed(transaction, grace_seconds=GRACE_SECONDS, besides=failed)
                if name is None:
                    break
                if not await self._deleted(name):
                    failed.append(name)
                    continue
                await queues.forget(transaction, name)
            log.info("queue.deleted", queue=name)
        self._undeleted.intersection_update(failed)

    async def _deleted(self, name: str) -> bool:
        try:
            await self._broker.delete(name)
        except BrokerUnavailable as error:
            if name not in self._undeleted:
                self._undeleted.add(name)
                log.warning("queue.undeleted", queue=name, reason=str(error))
            return False
        return True
