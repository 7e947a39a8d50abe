"""Who changes something on purpose, and what such changes are called where they are recorded.

Out: values, without I/O. Rows of them: ``store/audit.py``.
"""

from enum import StrEnum
from typing import NamedTuple


class Action(StrEnum):
    """What was done, by the kind of thing that it was done to."""

    TASK_CANCEL = "task.cancel"
    TASK_REPLAY = "task.replay"
    QUEUE_CREATE = "queue.create"
    QUEUE_CHANGE = "queue.change"
    QUEUE_PURGE = "queue.purge"
    QUEUE_REMOVE = "queue.remove"
    TYPE_CHANGE = "type.change"
    KEY_CREATE = "key.create"
    KEY_CHANGE = "key.change"
    KEY_ROTATE = "key.rotate"
    KEY_REVOKE = "key.revoke"


class Author(NamedTuple):
    """Whose wish a change is: ``actor`` is a principal's id, ``anonymous``, or ``cli:alice``; ``name`` is for people.

    ``source`` is the address that the wish came from; with ``request_id`` it is empty for a command.
    """

    actor: str
    name: str
    source: str = ""
    request_id: str = ""
