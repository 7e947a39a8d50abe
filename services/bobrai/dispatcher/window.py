"""How many hints one queue may keep ready in the broker, and how many it has now, without asking for each.

In: what was published, and now and then the broker's own count. Out: the room for more. The backlog waits in the
outbox, where a late urgent task can still overtake it; the window holds only what keeps the workers busy until the
next look. Next: `relay.py` fills it.
"""

import time
from typing import Final

from bobrai.dispatcher.fleet import Crew

WORK_SECONDS: Final = 0.25  # of all living workers' work that is kept ready
LOOK_SECONDS: Final = 0.015  # between two looks at a full queue whose speed is unknown
LONGEST_LOOK_SECONDS: Final = 0.1
SHORTEST_LOOK_SECONDS: Final = 0.01
REFILL_SHARE: Final = 8  # a full window is refilled once an eighth of it is free, not for every hint that leaves
REFILL_SECONDS: Final = 0.05  # or after so long, so that a few slow slots are not kept waiting
CLOSED_SECONDS: Final = 0.5  # that a queue is left alone after the broker refused or lost it; doubles each time
LONGEST_CLOSED_SECONDS: Final = 4.0


class Window:
    """The window of one queue. ``backlogged``: the last take ended because there was no room for more."""

    def __init__(self) -> None:
        self.size = 0
        self.backlogged = False
        self._ready = 0  # hints, as the broker's count says
        self._published = 0  # hints since then, of which none may have been consumed yet
        self._hints = 1.0  # lately, with the next one
        self._messages = 1.0
        self._looked_at = self._filled_at = self._closed_until = float("-inf")
        self._look_seconds = LOOK_SECONDS
        self._setbacks = 0

    def fit(self, least: int, crew: Crew) -> None:
        """Take the size from the setting and from what the workers can do."""
        self.size = max(least, 2 * crew.slots, int(crew.total_per_second * WORK_SECONDS))
        if crew.total_per_second > 0:
            drained = self.size / REFILL_SHARE / crew.total_per_second
            self._look_seconds = min(max(drained, SHORTEST_LOOK_SECONDS), LONGEST_LOOK_SECONDS)
        else:
            self._look_seconds = LOOK_SECONDS

    @property
    def _free(self) -> int:
        return self.size - self._ready - self._published

    @property
    def is_closed(self) -> bool:
        """Whether the queue is left alone now, because the broker took nothing for it."""
        return time.monotonic() < self._closed_until

    def should_look(self) -> bool:
        """Whether the upper bound leaves no room, or little while more waits, and the last look is not too fresh."""
        now = time.monotonic()
        if now < self._closed_until or now - self._looked_at < self._look_seconds:
            return False
        return self._free <= 0 or (self.backlogged and 2 * self._free < self.size)

    def room(self) -> int:
        """Return how many hints may be published now."""
        now = time.monotonic()
        if now < self._closed_until:
            return 0
        trickle = self.backlogged and self._free * REFILL_SHARE < self.size and now - self._filled_at < REFILL_SECONDS
        return 0 if trickle else max(0, self._free)

    def next_look_seconds(self) -> float:
        """Return when a window without room is worth another look."""
        return max(self._closed_until - time.monotonic(), self._look_seconds)

    def saw(self, messages: int) -> None:
        """Note the broker's count of ready messages; each is taken to hold as many hints as lately published ones."""
        self._ready = round(messages * self._hints / self._messages)
        self._published = 0
        self._looked_at = time.monotonic()

    def published(self, hints: int, messages: int) -> None:
        """Note what was published and confirmed."""
        self._published += hints
        self._hints = self._hints / 2 + hints
        self._messages = self._messages / 2 + messages
        self._filled_at = time.monotonic()

    def accepted(self) -> None:
        """Note that the broker took everything: the next closing is news again."""
        self._setbacks = 0

    def close(self) -> bool:
        """Leave the queue alone for a while, because the broker takes nothing for it; returns whether that is new."""
        seconds = min(CLOSED_SECONDS * 2 ** min(self._setbacks, 10), LONGEST_CLOSED_SECONDS)
        self._closed_until = time.monotonic() + seconds
        self._setbacks += 1
        return self._setbacks == 1

    def reopen(self) -> None:
        """Try the queue again: what went wrong before was the broker's absence."""
        self._closed_until = float("-inf")
        self._setbacks = 0
