"""How many tasks of a principal may wait: known without asking the database for each submit.

In: principals with a maximum, and counts of what waits of them, taken about once a second while they submit. Out:
TooManyWaiting, or nothing. Between two counts the figure grows by what this process accepted; what other processes
accepted since is in the next count.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from bobrai.api.admission import Room
from bobrai.domain.access import Principal
from bobrai.domain.errors import TooManyWaiting
from bobrai.store import tasks
from bobrai.store.pool import Executor

_PERIOD_SECONDS: Final = 1.0
_FORGOTTEN_SECONDS: Final = 60.0  # after the last submit
_REST: Final = 10.0  # pause after a count, as a multiple of the time that it took
_RETRY_AFTER_SECONDS: Final = 5


class Allowances:
    """The rooms of principals whose waiting tasks are bounded. ``run_once`` counts."""

    def __init__(self, database: Executor) -> None:
        self._database = database
        self._rooms: dict[str, Room] = {}
        self._asked_at: dict[str, float] = {}

    async def room(self, principal: Principal) -> Room | None:
        """Return the room of a principal's tasks, which knows how many wait; None where nothing is bounded."""
        most = principal.allowance.max_waiting
        if most is None:
            return None
        room = self._rooms.get(principal.id)
        if room is None:
            room = await self._first_count(principal.id, most)
        self._asked_at[principal.id] = time.monotonic()
        room.limit = most
        return room

    async def taken(self, principal: Principal) -> AbstractContextManager[None]:
        """Count one task that is made to wait inside of the returned context, which gives it back if that fails.

        Raises TooManyWaiting. It counts for whoever has it wait, until the next count for whose it is.
        """
        room = await self.room(principal)
        admit(room, 1)
        return _given_back_on_failure(room)

    async def run_once(self) -> float:
        """Count again for those who submitted lately; returns the seconds until the next time."""
        now = time.monotonic()
        for principal_id in [each for each, at in self._asked_at.items() if now - at > _FORGOTTEN_SECONDS]:
            del self._asked_at[principal_id], self._rooms[principal_id]
        if self._rooms:
            await self._count({each: room.limit for each, room in self._rooms.items()})
        return max(_PERIOD_SECONDS, _REST * (time.monotonic() - now))

    async def _first_count(self, principal_id: str, most: int) -> Room:
        counts = await tasks.waiting_of(self._database, {principal_id: most})
        if principal_id not in self._rooms:
            room = self._rooms[principal_id] = Room()
            room.measured(counts[principal_id], taken_at=time.monotonic())
        return self._rooms[principal_id]

    async def _count(self, bounds: dict[str, int]) -> None:
        began = time.monotonic()
        for room in self._rooms.values():
            room.mark(began)
        for principal_id, waiting in (await tasks.waiting_of(self._database, bounds)).items():
            if principal_id in self._rooms:
                self._rooms[principal_id].measured(waiting, taken_at=began)


def admit(room: Room | None, tasks: int) -> None:
    """Count tasks that are about to be stored, to be given back if they are not; raises TooManyWaiting."""
    if room is not None and not room.take(tasks):
        raise TooManyWaiting(room.limit, _RETRY_AFTER_SECONDS)


@contextmanager
def _given_back_on_failure(room: Room | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if room is not None:
            room.give_back(1)
        raise
