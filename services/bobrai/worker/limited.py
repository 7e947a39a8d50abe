"""What is limited, as this worker knows it: which claims need an admission, and whose end the dispatcher waits for.

In: names of queues and types, read with every heartbeat. Out: answers for ``claims``, and a NOTIFY when a place is free
again. Nothing depends on either: a claim reads the limits itself, and the dispatcher looks by itself.
"""

import asyncio
import time
from collections.abc import Iterable

from bobrai.domain.errors import StoreRejected, Unavailable
from bobrai.store import outbox
from bobrai.store.admissions import Names
from bobrai.store.pool import Database


class Limited:
    """The latest reading; one that is older than ``holds_seconds`` says nothing any more."""

    def __init__(self, database: Database, holds_seconds: float) -> None:
        self._database = database
        self._holds_seconds = holds_seconds
        self._names = Names(frozenset(), frozenset())
        self._read_at = float("-inf")
        self._telling: asyncio.Task[None] | None = None
        self._more = False

    def learn(self, names: Names) -> None:
        """Take what is limited now."""
        self._names = names
        self._read_at = time.monotonic()

    def may_hold(self, queues: Iterable[str]) -> bool:
        """Whether tasks of these queues may need an admission; whoever does not know says yes."""
        names = self._names
        if names.types or time.monotonic() - self._read_at > self._holds_seconds:
            return True
        return bool(names.queues) and not names.queues.isdisjoint(queues)

    def ended(self, queue: str, type_: str) -> None:
        """Tell the dispatcher soon, if a task of this kind has held a place."""
        if queue not in self._names.queues and type_ not in self._names.types:
            return
        self._more = True
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell(), name="places-freed")

    async def _tell(self) -> None:
        try:
            while self._more:
                self._more = False
                await outbox.wake(self._database)
        except (Unavailable, StoreRejected):
            pass  # the dispatcher looks a few times a second
        finally:
            self._telling = None
