"""Tells which queues of this worker's types nobody consumes: their tasks would wait for ever, without a word.

In: the types, and the rows of all workers that live. Out: one line of the log for each change.
"""

from collections.abc import Sequence
from typing import Final

from bobrai.domain.task import TaskType
from bobrai.store import workers
from bobrai.store.pool import Executor
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

LOOK_SECONDS: Final = 3.0


class Unconsumed:
    """Remembers what nobody consumed the last time: of workers that start together, one is up before the other."""

    def __init__(self, database: Executor, types: Sequence[TaskType]) -> None:
        self._database = database
        self._types: dict[str, list[str]] = {}
        for each in types:
            self._types.setdefault(each.queue, []).append(each.name)
        self._seen: set[str] | None = None
        self._told: set[str] = set()

    async def look(self) -> None:
        """Tell what has changed for two looks; call it every ``LOOK_SECONDS``. Raises DatabaseUnavailable."""
        consumed = {queue for worker in await workers.live(self._database) for queue in worker.queues}
        missing = self._types.keys() - consumed
        lasts, self._seen = missing == self._seen, missing
        if not lasts or missing == self._told:
            return
        self._told = missing
        if missing:
            types = sorted(name for queue in missing for name in self._types[queue])
            log.warning(
                "worker.queues_unconsumed",
                queues=sorted(missing),
                types=types,
                hint="their tasks wait until a worker has the queues in BOBRAI_WORKER_QUEUES or --queues",
            )
        else:
            log.info("worker.queues_consumed", queues=sorted(self._types))
