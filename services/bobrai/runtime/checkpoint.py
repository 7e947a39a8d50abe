"""Named points at which a fault test may kill the process; in production each is one comparison.

The list is closed: a test fails when a checkpoint has no fault test, or a fault test no checkpoint.
"""

import os
import signal
from typing import Final

CHECKPOINTS: Final = (
    "api.committed",  # the rows are durable, the client has no answer yet
    "relay.taken",  # outbox rows are removed but not committed, nothing is published
    "relay.published",  # the broker confirmed, the removal is not committed
    "relay.admitted",  # what limits let through is committed, nothing of it is published
    "worker.claimed",  # the claim is committed, the handler has not started
    "worker.handled",  # the handler returned, nothing is written
    "worker.completed",  # the outcome is committed, the delivery is not acked
    "worker.acked",
)

_armed = ""


def arm(name: str) -> None:
    """Kill this process with SIGKILL at the named checkpoint; an empty name disarms.

    Raises ValueError for a name that is not a checkpoint.
    """
    global _armed
    if name and name not in CHECKPOINTS:
        raise ValueError(f"{name!r} is not one of {', '.join(CHECKPOINTS)}")
    _armed = name


def checkpoint(name: str) -> None:
    """Pass, or die here when a fault test asked for it."""
    if name == _armed:
        os.kill(os.getpid(), signal.SIGKILL)
