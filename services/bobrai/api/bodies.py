"""How many bytes of request bodies a process holds: from their arrival until their requests are answered.

In: sizes, as bodies are declared and arrive. Out: room, after a wait if need be, or a 503 problem. Small bodies have a
part of the room for themselves, so that batches never keep single tasks out; a body that takes long to arrive makes
way for others.
"""

import asyncio
import time
from collections import deque
from typing import Final

from bobrai.api import problems
from bobrai.api.deadlines import Deadline
from bobrai.domain import limits

_SMALL_BYTES: Final = limits.MAX_BODY_BYTES
_FOR_LARGE: Final = 0.75  # of the room
_SLOW_SECONDS: Final = 3.0  # after which a body that still arrives makes way
_LONGEST_WAIT_SECONDS: Final = 8.0
_MOST_WAITING: Final = 64  # each has a part of its body in memory while it waits


class Body:
    """The room that one request's body takes."""

    __slots__ = ("deadline", "since", "size")

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.size = 0
        self.since = time.monotonic()


class Bodies:
    """The room of a process, in bytes."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._room_for_large = int(room * _FOR_LARGE)
        self._held = 0
        self._arriving: dict[Body, None] = {}  # the oldest first
        self._waiting: deque[tuple[Body, int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """Bytes that are taken now."""
        return self._held

    def arrives(self, body: Body) -> None:
        """Note that a body needs more than one read."""
        self._arriving[body] = None

    def complete(self, body: Body) -> None:
        """Note that nothing more of a body will come."""
        self._arriving.pop(body, None)

    def release(self, body: Body) -> None:
        """Give back the room of a body; its request is answered, or given up."""
        self._arriving.pop(body, None)
        self._held -= body.size
        body.size = 0
        if self._waiting:
            self._grant()

    def take(self, body: Body, size: int) -> bool:
        """Make the room of a body so large if there is any; see ``wait`` otherwise."""
        more = size - body.size
        if self._held + more > (self._room if size <= _SMALL_BYTES else self._room_for_large):
            return False
        if self._waiting and size > _SMALL_BYTES:
            return False  # they came first
        self._take(body, more)
        return True

    async def wait(self, body: Body, size: int) -> None:
        """Make the room of a body so large once there is some; raises a 503 problem, for small ones at once."""
        if size <= _SMALL_BYTES:
            if not (self._cut_slow(body) and self.take(body, size)):
                raise problems.crowded()
            return
        arriving = body in self._arriving
        self._arriving.pop(body, None)
        await self._wait(body, size - body.size)
        body.since = time.monotonic()
        if arriving:
            self._arriving[body] = None

    def _take(self, body: Body, more: int) -> None:
        body.size += more
        self._held += more

    async def _wait(self, body: Body, more: int) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            raise problems.crowded()
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (body, more, granted)
        self._waiting.append(entry)
        try:
            until = time.monotonic() + _LONGEST_WAIT_SECONDS
            while not granted.done():
                if (left := until - time.monotonic()) <= 0:
                    raise problems.crowded()
                self._cut_slow(body)
                self._grant()
                await asyncio.wait({granted}, timeout=min(left, 1.0))
        finally:
            if not granted.done():
                self._waiting.remove(entry)

    def _grant(self) -> None:
        while self._waiting:
            body, more, granted = self._waiting[0]
            if self._held + more > self._room_for_large:
                return
            self._waiting.popleft()
            self._take(body, more)  # given back with the body, whether or not somebody still waits for it
            granted.set_result(None)

    def _cut_slow(self, newcomer: Body) -> bool:
        """End the longest of the bodies that take too long to arrive; returns whether there was one."""
        oldest = next(iter(self._arriving), None)
        if oldest is None or oldest is newcomer or time.monotonic() - oldest.since < _SLOW_SECONDS:
            return False
        self.release(oldest)
        oldest.deadline.crowd_out()
        return True
