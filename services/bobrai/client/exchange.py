"""Which requests are sent again, and when: the rules, without I/O.

In: a request, and what became of it. Out: what to do next, a Send or a Pause, until there is an answer or an error.
What could take effect twice is never sent again: a submit carries an idempotency key, and other requests say by
themselves whether doing them twice is the same as doing them once.
"""

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from bobrai.client import errors, problems
from bobrai.client.errors import ConnectionFailed

_TRANSIENT: Final = frozenset({408, 429, 502, 503, 504})
# The API has looked at nothing of such a request.
_UNTOUCHED: Final = frozenset(
    {"crowded", "overloaded", "too-many-heads", "rate-limited", "too-many-at-once", "body-timeout", "head-timeout"}
)
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0
_SHORTEST_TIMEOUT_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``is_repeatable``: sending it twice is the same as sending it once. Times are in seconds.

    ``held_seconds`` is how long the API may hold the answer; ``within_seconds`` bounds all tries, None is the client's
    deadline. ``idempotency_key``: which one its caller may call again with.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_repeatable: bool = True
    held_seconds: float = 0.0
    within_seconds: float | None = None
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; the names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """Send the request, and wait no longer for each step of it."""

    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for one try, and for all tries of a request together, in seconds."""

    timeout: float = 10.0
    deadline: float = 60.0


Exchange: TypeAlias = Generator[Send | Pause, Answer | None, Answer]


def exchange(
    request: Request,
    patience: Patience,
    clock: Callable[[], float] = time.monotonic,
    uniform: Callable[[float, float], float] = random.uniform,
) -> Exchange:
    """Say what to do until there is a good answer, which is returned; raises the last error when the time is over.

    A Send is answered with an Answer, or with ConnectionFailed thrown in.
    """
    within = patience.deadline if request.within_seconds is None else min(request.within_seconds, patience.deadline)
    until = clock() + request.held_seconds + within
    failures = 0
    while True:
        try:
            answer = yield Send(
                max(_SHORTEST_TIMEOUT_SECONDS, min(request.held_seconds + patience.timeout, until - clock()))
            )
            if answer is None:
                raise RuntimeError("a Send wants an Answer")
            if 200 <= answer.status < 300:
                return answer
            failure: errors.ClientError = problems.of_answer(answer.status, answer.content, answer.headers)
            asked, transient = problems.retry_after(answer.headers), answer.status in _TRANSIENT
            untouched = isinstance(failure, errors.ApiError) and failure.kind in _UNTOUCHED
        except ConnectionFailed as error:
            failure, asked, transient, untouched = error, None, not error.is_lasting, error.unsent
        failures += 1
        pause = _pause(failures, asked, uniform)
        if not transient or not (request.is_repeatable or untouched) or clock() + pause > until:
            failure.idempotency_key = request.idempotency_key
            raise failure
        yield Pause(pause)


def _pause(failures: int, asked: float | None, uniform: Callable[[float, float], float]) -> float:
    """Return how long to wait: no less than was asked for, growing, and not all clients at one moment."""
    longest = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 16), _LONGEST_PAUSE_SECONDS)
    return (asked or 0.0) + uniform(longest / 2, longest)
