"""Limits of a queue or a type: how many of its tasks run at once and start in a time, in all and per payload key.

Out: checked values, without I/O. Types declare them, people set them through the API; the dispatcher keeps them when it
decides what may be published.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bobrai.domain import limits, pointer
from bobrai.domain.access import Rate


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """A bound on what runs at once, and one on what starts in a time; None: no bound.

    ``rate`` is a text such as ``10/s``; ``burst`` tasks may start at once after a pause, as many as the rate's number
    when it is None, so that in no time of T seconds more than ``burst`` + T * rate start.
    """

    concurrency: int | None = None
    rate: str | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        _check_whole("concurrency", self.concurrency, limits.MAX_CONCURRENCY)
        if self.rate is not None:
            if not isinstance(self.rate, str):
                raise ValueError(f"rate must be a text such as '10/s', not {self.rate!r}")
            Rate.parse(self.rate)
        if self.burst is not None and self.rate is None:
            raise ValueError("a burst needs a rate, such as 10/s")
        _check_whole("burst", self.burst, limits.MAX_RATE)

    @cached_property
    def per_second(self) -> float:
        """The rate in tasks per second; without bound if there is none."""
        if self.rate is None:
            return math.inf
        rate = Rate.parse(self.rate)
        return rate.count / rate.seconds

    @cached_property
    def capacity(self) -> int:
        """How many may start at once after a pause; 0 without a rate."""
        if self.rate is None:
            return 0
        return self.burst or Rate.parse(self.rate).count

    @property
    def is_bound(self) -> bool:
        """Whether it keeps anything back at all."""
        return self.concurrency is not None or self.rate is not None


@dataclass(frozen=True)
class PerKey(Bounds):
    """Bounds for the tasks of each value of a payload key, which also take turns with those of others.

    ``key`` is a JSON Pointer (RFC 6901) into the payload; tasks without it share the key ``""``. A value of ``weights``
    with weight 3 gets three turns where others get one.
    """

    key: str = field(kw_only=False)
    weights: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pointer.check(self.key, '"/account"')
        super().__post_init__()
        if not isinstance(self.weights, Mapping) or len(self.weights) > limits.MAX_WEIGHTS:
            raise ValueError(f"weights must be up to {limits.MAX_WEIGHTS} numbers by key, such as {{'acme': 3}}")
        for key, weight in self.weights.items():
            if not isinstance(key, str) or len(key) > limits.MAX_KEY_VALUE:
                raise ValueError(f"weights are for values of up to {limits.MAX_KEY_VALUE} characters, not {key!r}")
            pointer.check_storable(key)
            if type(weight) is not int or not 1 <= weight <= limits.MAX_WEIGHT:
                raise ValueError(f"the weight of {key!r} must be 1 to {limits.MAX_WEIGHT}, not {weight!r}")


@dataclass(frozen=True, kw_only=True)
class Limits(Bounds):
    """Bounds for all tasks of a queue or a type together, and those for each value of a payload key.

    A retry counts as a start of its own. Raises ValueError that says what to change.
    """

    per_key: PerKey | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_key is not None and not isinstance(self.per_key, PerKey):
            raise ValueError(f"per_key must be a bobrai.PerKey, such as PerKey('/account'), not {self.per_key!r}")

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing at all."""
        return not self.is_bound and self.per_key is None


def _check_whole(name: str, value: Any, most: int) -> None:
    if value is not None and (type(value) is not int or not 1 <= value <= most):
        raise ValueError(f"{name} must be a whole number from 1 to {most}, not {value!r}")
