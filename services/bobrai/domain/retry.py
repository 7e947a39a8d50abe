"""How long to wait before the next attempt, and when there is none. Pure; the random source is passed in."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bobrai.domain import limits

DEFAULT_MAX_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a failed attempt is tried again: exponential backoff with jitter, up to a number of attempts or for a time.

    ``delay_seconds`` is the nominal wait after the first attempt, multiplied by ``factor`` after each further one and
    never above ``max_delay_seconds``. ``jitter`` is the largest share by which a wait is shortened at random, so that
    tasks that failed together do not come back together. ``max_attempts`` is 3, or with ``retry_for_seconds`` as many
    as may be: then no attempt follows that would start later than so many seconds after the first one.
    """

    max_attempts: int = None  # type: ignore[assignment]  # an int from the start on: see above
    delay_seconds: float = 4.0
    factor: float = 2.0
    max_delay_seconds: float = 10.0
    jitter: float = 0.2
    retry_for_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.max_attempts is None:
            default = DEFAULT_MAX_ATTEMPTS if self.retry_for_seconds is None else limits.MAX_ATTEMPTS
            object.__setattr__(self, "max_attempts", default)
        self._check_numbers()
        if not 1 <= self.max_attempts <= limits.MAX_ATTEMPTS:
            raise ValueError(f"max_attempts must be 1 to {limits.MAX_ATTEMPTS}, not {self.max_attempts}")
        if not 0 <= self.delay_seconds <= limits.MAX_DELAY_SECONDS:
            raise ValueError(f"delay_seconds must be 0 to {limits.MAX_DELAY_SECONDS}, not {self.delay_seconds}")
        if not 0 <= self.max_delay_seconds <= limits.MAX_DELAY_SECONDS:
            raise ValueError(f"max_delay_seconds must be 0 to {limits.MAX_DELAY_SECONDS}, not {self.max_delay_seconds}")
        if not 1 <= self.factor <= 100:
            raise ValueError(f"factor must be 1 to 100, not {self.factor}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be 0 to 1, not {self.jitter}")
        if self.retry_for_seconds is not None and not 0 < self.retry_for_seconds <= limits.MAX_DELAY_SECONDS:
            raise ValueError(
                f"retry_for_seconds must be above 0, up to {limits.MAX_DELAY_SECONDS}, not {self.retry_for_seconds}"
            )

    def _check_numbers(self) -> None:
        if type(self.max_attempts) is not int:
            raise ValueError(f"max_attempts must be a whole number, not {self.max_attempts!r}")
        for name in ("delay_seconds", "factor", "max_delay_seconds", "jitter", "retry_for_seconds"):
            value = getattr(self, name)
            if type(value) not in {int, float} and (value is not None or name != "retry_for_seconds"):
                raise ValueError(f"{name} must be a number, not {value!r}")

    def changed(self, changes: Mapping[str, Any], max_attempts: int | None) -> "Retry":
        """Return the policy of a task that says some of it itself; raises TypeError and ValueError for what is none.

        With a time of its own and no number there are as many attempts as may be: the type's number is for tasks
        without one.
        """
        said = dict(changes)
        if max_attempts is not None:
            said["max_attempts"] = max_attempts
        elif "retry_for_seconds" in said:
            said["max_attempts"] = None
        return replace(self, **said) if said else self

    def delay_after(self, failures: int, uniform: Callable[[], float] = random.random) -> float:
        """Return the wait in seconds after the given number of failed attempts (1 = the first one failed).

        ``uniform`` returns a number in [0, 1).
        """
        # The exponent is bounded because 100.0 ** 400 overflows, and every cap is reached long before.
        nominal = self.delay_seconds * self.factor ** min(failures - 1, 64)
        return min(nominal, self.max_delay_seconds) * (1.0 - self.jitter * uniform())
