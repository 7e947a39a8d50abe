"""Who keeps a server waiting: connections in the order in which they began to, so that the silent and the slow end.

In: connections as ``http`` sees them change. Out: their end, when their time is over or their place is needed. All have
equally long for the same thing, so the first of a list is always the next to end, and one timer serves every list.
"""

import asyncio
from collections import Counter
from typing import Final, NamedTuple, Protocol

from bobrai.telemetry import metrics

_LOOK_SECONDS: Final = 0.5


class Limits(NamedTuple):
    """How long and how much the connections of one server may take."""

    connections: int  # at once; beyond, the one that has kept the server waiting longest makes room
    keep_alive_seconds: float  # between two requests
    connections_per_address: int = 0  # at once; beyond, the newest ends at once. 0: without bound
    head_seconds: float = 10.0  # for the first request to begin, and for a head once begun
    rest_seconds: float = 10.0  # for what is left of a body after its answer
    close_seconds: float = 10.0  # for a client to take its last answer
    stall_seconds: float = 30.0  # without taking any byte of an answer
    last_call_seconds: float = 1.0  # for one more request of who is idle when the server ends
    head_bytes: int = 32 * 1024
    head_lines: int = 100
    all_heads_bytes: int = 16 * 1024 * 1024  # of large or unfinished heads, in the whole server


class Connection(Protocol):
    """What this module must know of a connection."""

    address: str  # of its other end; empty where there is none

    def too_slow(self) -> None:
        """End: a head did not arrive in time."""

    def crowded_out(self) -> None:
        """End: unfinished heads take too much memory."""

    def end(self) -> None:
        """End as politely as is possible."""

    def abort(self) -> None:
        """End at once; what was not sent is lost."""

    def unsent(self) -> int:
        """Return how many bytes the client has not taken."""


class Waits:
    """Connections that have equally long for one thing; the first of them ends next."""

    def __init__(self, reason: str, seconds: float) -> None:
        self.seconds = seconds
        self.since: dict[Connection, float] = {}
        self._ended = metrics.HTTP_CONNECTIONS_ENDED.labels(reason)

    def first(self) -> Connection | None:
        """Return the one that is waited for longest."""
        return next(iter(self.since), None)

    def overdue(self, now: float) -> list[Connection]:
        """Take out the connections whose time is over."""
        found = []
        for connection, since in self.since.items():
            if now - since < self.seconds:
                break
            found.append(connection)
        for connection in found:
            self.leave(connection)
        return found

    def enter(self, connection: Connection) -> None:
        """Begin to wait for a connection, unless it is waited for."""
        if connection not in self.since:
            self.since[connection] = asyncio.get_running_loop().time()

    def leave(self, connection: Connection) -> None:
        """Forget a connection, if it is here."""
        self.since.pop(connection, None)

    def ended(self) -> None:
        """Count one that was ended."""
        self._ended.inc()


class Unsent(Waits):
    """Connections whose clients should take an answer: they end when no byte of it was taken in that time."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason, seconds)
        self._left: dict[Connection, int] = {}

    def enter(self, connection: Connection) -> None:
        """Begin to wait for a connection."""
        self._left[connection] = connection.unsent()
        super().enter(connection)

    def leave(self, connection: Connection) -> None:
        """Forget a connection, if it is here."""
        self._left.pop(connection, None)
        super().leave(connection)

    def overdue(self, now: float) -> list[Connection]:
        """Take out the connections that took nothing; the others have their time once more."""
        left = dict(self._left)
        stuck = []
        for connection in super().overdue(now):
            if connection.unsent() < left[connection]:
                self.enter(connection)
            else:
                stuck.append(connection)
        return stuck


class Connections:
    """The connections of one server, by what they owe it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.silent = Waits("silent", limits.head_seconds)
        self.heads = Waits("head", limits.head_seconds)
        self.idle = Waits("idle", limits.keep_alive_seconds)
        self.rests = Waits("rest", limits.rest_seconds)
        self._owing = (self.silent, self.heads, self.idle, self.rests)
        self._closing = Unsent("close", limits.close_seconds)
        self._stalled = Unsent("stall", limits.stall_seconds)
        self._evicted = metrics.HTTP_CONNECTIONS_ENDED.labels("place")
        self._of_one_address = metrics.HTTP_CONNECTIONS_ENDED.labels("address")
        self._addresses: Counter[str] = Counter()  # empty unless they are bounded
        self._open = 0
        self._heads_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def opened(self, connection: Connection) -> None:
        """Take a new connection; one that has kept the server waiting longest makes room for it."""
        self._open += 1
        if self.limits.connections_per_address:
            self._addresses[connection.address] += 1
            if self._addresses[connection.address] > self.limits.connections_per_address:
                self._of_one_address.inc()
                connection.abort()
        if self._open > self.limits.connections:
            self._make_room()
        self.silent.enter(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        self._open -= 1
        if self._addresses:
            self._addresses[connection.address] -= 1
            if self._addresses[connection.address] <= 0:
                del self._addresses[connection.address]
        for waits in (*self._owing, self._closing, self._stalled):
            waits.leave(connection)

    def closing(self, connection: Connection) -> None:
        """Give a connection that is closed the time to take its last answer."""
        for waits in self._owing:
            waits.leave(connection)
        self._closing.enter(connection)

    def stalled(self, connection: Connection) -> None:
        """Its client takes no more of an answer, for now."""
        self._stalled.enter(connection)

    def flowing(self, connection: Connection) -> None:
        """Its client takes the answer again."""
        self._stalled.leave(connection)

    def hold(self, size: int) -> bool:
        """Count bytes of heads that are kept; the oldest unfinished ones go when they are too many.

        Returns whether that was enough.
        """
        self._heads_bytes += size
        while self._heads_bytes > self.limits.all_heads_bytes:
            oldest = self.heads.first()
            if oldest is None:
                return False
            self.heads.leave(oldest)
            self.heads.ended()
            oldest.crowded_out()
        return True

    def release(self, size: int) -> None:
        """Uncount bytes of heads."""
        self._heads_bytes -= size

    def _make_room(self) -> None:
        for waits in (self._closing, self.silent, self.heads, self.rests, self.idle):
            if (oldest := waits.first()) is not None:
                waits.leave(oldest)
                self._evicted.inc()
                oldest.abort()
                return

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for waits in self._owing:
            for connection in waits.overdue(now):
                waits.ended()
                if waits is self.heads:
                    connection.too_slow()
                else:
                    connection.end()
        for unsent in (self._closing, self._stalled):
            for connection in unsent.overdue(now):
                unsent.ended()
                connection.abort()
        self._timer = loop.call_later(_LOOK_SECONDS, self._look) if self._open else None
