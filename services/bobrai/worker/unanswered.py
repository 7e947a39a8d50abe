"""Whether a write whose answer was lost has taken place."""

import asyncio
from typing import Final

from bobrai.domain.task import Outcome, TaskStatus
from bobrai.runtime.outage import Outage
from bobrai.store import attempts
from bobrai.store.pool import Database
from bobrai.worker.lease import Lease

_HELD: Final = TaskStatus.PROCESSING.value


async def is_settled(database: Database, lease: Lease, outage: Outage, worker_id: int, outcome: Outcome) -> bool:
    """Return whether an outcome is there; waits while the database is away, for as long as the lease lives."""
    while worker_id == lease.worker_id:
        try:
            found = await attempts.settled(database, worker_id, [outcome])
        except Exception as error:  # noqa: BLE001 - whatever it is, the outcome must not be forgotten
            await asyncio.sleep(outage.failed(error))
        else:
            outage.over()
            return found.get(outcome.task_id, _HELD) != _HELD
    return False
