"""The only thing that crosses the broker: a bundle of hints "task 123, attempt 0 is due".

In: outbox rows, from the dispatcher. Out: bytes in RabbitMQ, and hints again in the worker, which claims them in
the store. A hint carries no truth: lost, doubled or late, it can neither lose a task nor run an attempt twice.
"""

from typing import NamedTuple

import msgspec

from bobrai.domain.errors import MalformedMessage

VERSION = 1
CONTENT_TYPE = "application/json"


class Hint(NamedTuple):
    """A task that is due, and the number of attempts that it had started when this was written."""

    task_id: int
    attempt: int


class _Body(msgspec.Struct, forbid_unknown_fields=False):
    v: int
    hints: list[tuple[int, int]]


_decoder = msgspec.json.Decoder(_Body)


def encode(hints: list[Hint]) -> bytes:
    """Return the message body for one or more hints."""
    return msgspec.json.encode({"v": VERSION, "hints": hints})


def decode(body: bytes) -> list[Hint]:
    """Return the hints of a message body.

    Raises MalformedMessage when the body is not a version 1 bundle with at least one hint.
    """
    try:
        message = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"not a bundle of hints: {error}") from error
    if message.v != VERSION:
        raise MalformedMessage(f"message version {message.v} is not {VERSION}")
    if not message.hints:
        raise MalformedMessage("a message must carry at least one hint")
    for task_id, attempt in message.hints:
        if not (0 < task_id < 2**63 and 0 <= attempt < 2**31):
            raise MalformedMessage(f"hint [{task_id}, {attempt}] is out of range")
    return [Hint(task_id, attempt) for task_id, attempt in message.hints]
