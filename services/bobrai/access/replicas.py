"""This process among the API processes that live: each grants its share of a principal's rate.

In: rows of ``api_replicas``. Out: their number, for the throttle. While the database is away the last number counts.
"""

from typing import Final

from bobrai.access.throttle import Throttle
from bobrai.domain.errors import BobraiError
from bobrai.store import replicas
from bobrai.store.pool import Executor
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_LEASE_SECONDS: Final = 15.0


class Replicas:
    """Keeps this process in the count, and the throttle informed. ``refresh_seconds`` is well under the lease."""

    def __init__(self, database: Executor, throttle: Throttle, *, refresh_seconds: float) -> None:
        self._database = database
        self._throttle = throttle
        self._interval = refresh_seconds
        self._id: int | None = None

    async def run_once(self) -> float:
        """Say that this process lives, and count; returns the seconds until the next time."""
        known = self._id is not None and await replicas.renew(self._database, self._id, lease_seconds=_LEASE_SECONDS)
        if not known:
            self._id = await replicas.register(self._database, lease_seconds=_LEASE_SECONDS)
        self._throttle.replicas = max(await replicas.count(self._database), 1)
        return self._interval

    async def leave(self) -> None:
        """Take this process out of the count, if the database can be told."""
        if self._id is not None:
            try:
                await replicas.forget(self._database, self._id)
            except BobraiError as error:
                log.debug("database.silent", error=str(error))  # its lease ends by itself
