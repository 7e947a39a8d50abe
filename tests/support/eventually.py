"""Waiting for a condition: the only place in the tests that polls.

`eventually` waits until something is true, `stays` watches that something remains true. Both take a plain or an
async predicate; the `_sync` twin serves tests and helpers that have no event loop.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.1


class NeverHappened(AssertionError):
    """The condition did not come true in time; the message has the last value or exception."""


class _Attempts:
    """What the predicate last gave, and when to give up."""

    def __init__(
        self, predicate: object, timeout: float, message: str, longest_pause: float = LONGEST_PAUSE_SECONDS
    ) -> None:
        self.name = message or getattr(predicate, "__qualname__", repr(predicate))
        self.timeout = timeout
        self.longest_pause = longest_pause
        self.deadline = time.monotonic() + timeout
        self.last: object = "never asked"
        self.error: Exception | None = None

    def saw(self, value: object) -> bool:
        self.last, self.error = value, None
        return bool(value)

    def pauses(self) -> Iterator[float]:
        """Pauses that double from 5 ms to the longest; ends once the deadline has passed."""
        pause = FIRST_PAUSE_SECONDS
        while (left := self.deadline - time.monotonic()) > 0:
            yield min(pause, left)
            pause = min(pause * 2, self.longest_pause)

    def failure(self) -> NeverHappened:
        if self.error is not None:
            last = f"last raised {type(self.error).__name__}: {self.error}"
        else:
            last = f"last value {self.last!r}"
        return NeverHappened(f"not within {self.timeout:g} s: {self.name}; {last}")


async def _ask(predicate: Callable[[], T | Awaitable[T]]) -> T:
    value = predicate()
    return await value if inspect.isawaitable(value) else value


async def eventually(predicate: Callable[[], T | Awaitable[T]], timeout: float = 10.0, *, message: str = "") -> T:
    """Return the predicate's first true value; an exception inside it counts as "not yet".

    Raises `NeverHappened` after `timeout` seconds. An answer that hangs is cut off at the deadline.
    """
    attempts = _Attempts(predicate, timeout, message)
    pauses = attempts.pauses()
    while True:
        try:
            async with asyncio.timeout(max(attempts.deadline - time.monotonic(), 0.05)):
                value = await _ask(predicate)
            if attempts.saw(value):
                return value
        except Exception as error:
            attempts.error = error
        pause = next(pauses, None)
        if pause is None:
            raise attempts.failure() from attempts.error
        await asyncio.sleep(pause)


def eventually_sync(
    predicate: Callable[[], T],
    timeout: float = 10.0,
    *,
    message: str = "",
    longest_pause: float = LONGEST_PAUSE_SECONDS,
) -> T:
    """`eventually` for callers without an event loop; it cannot cut off a predicate that hangs.

    A predicate that is dear to ask, such as one that runs a program, is given a longer pause.
    """
    attempts = _Attempts(predicate, timeout, message, longest_pause)
    pauses = attempts.pauses()
    while True:
        try:
            value = predicate()
            if attempts.saw(value):
                return value
        except Exception as error:
            attempts.error = error
        pause = next(pauses, None)
        if pause is None:
            raise attempts.failure() from attempts.error
        time.sleep(pause)


async def stays(predicate: Callable[[], object | Awaitable[object]], seconds: float, *, message: str = "") -> None:
    """Fail as soon as the predicate is false within the next `seconds`: for what must not happen."""
    attempts = _Attempts(predicate, seconds, message)
    for pause in attempts.pauses():
        value = await _ask(predicate)
        assert value, f"did not stay true for {seconds:g} s: {attempts.name}; value {value!r}"
        await asyncio.sleep(pause)
