"""What limits leave, counted by what they count. Arithmetic over what ``store/admissions`` reads.

In: the limits in force, what is let through, and what is left of rates. Out: how many tasks of some keys may start.
Next: ``admission.py`` lets so many through, ``measuring.py`` counts what is kept back.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bobrai.dispatcher.turns import Left
from bobrai.domain.limiting import Bounds
from bobrai.store import admissions
from bobrai.store.admissions import Bound, Bucket, Keys, Limited, Passed
from bobrai.store.pool import Executor

_ROUNDING: Final = 1e-9  # of tokens: ten tenths are one


def bounds_of(keys: Keys, limited: Limited) -> list[tuple[Bound, Bounds]]:
    """Return what bounds tasks of these keys."""
    found: list[tuple[Bound, Bounds]] = []
    for scope, name, key, limits in (
        ("queue", keys.queue, keys.queue_key, limited.queues.get(keys.queue)),
        ("type", keys.type, keys.type_key, limited.types.get(keys.type)),
    ):
        if limits is None:
            continue
        if limits.is_bound:
            found.append((Bound(scope, name, ""), limits))
        if limits.per_key is not None and limits.per_key.is_bound:
            found.append((Bound(f"{scope}_key", name, key), limits.per_key))
    return found


def weight_of(keys: Keys, limited: Limited) -> float:
    """Return how many turns tasks of these keys get where others get one."""
    weight = 1.0
    for key, limits in (
        (keys.queue_key, limited.queues.get(keys.queue)),
        (keys.type_key, limited.types.get(keys.type)),
    ):
        if limits is not None and limits.per_key is not None:
            weight *= limits.per_key.weights.get(key, 1)
    return weight


@dataclass(frozen=True, slots=True)
class Budget:
    """What is left of each bound; ``buckets`` are those of them that are rates."""

    bounds: Mapping[Bound, Bounds]
    left: Mapping[Bound, Left]
    buckets: Mapping[Bound, Bucket]
    changed: frozenset[Bound]  # of these, what has started since they were stored

    def of(self, keys: Keys, limited: Limited) -> list[Left]:
        """Return what is left of each bound on tasks of these keys."""
        return [self.left[bound] for bound, _ in bounds_of(keys, limited)]

    def after(self, started: Iterable[Keys], limited: Limited) -> dict[Bound, tuple[Bucket, float]]:
        """Return what is to be stored of rates once these tasks may start, and the seconds until each is full again."""
        spent = Counter(bound for keys in started for bound, _ in bounds_of(keys, limited) if bound in self.buckets)
        found = {}
        for bound in spent.keys() | self.changed:
            tokens, waiting, _ = self.buckets[bound]
            bucket = Bucket(tokens - spent[bound], waiting + spent[bound])
            found[bound] = (bucket, (self.bounds[bound].capacity - bucket.tokens) / self.bounds[bound].per_second)
        return found

    def next_token_seconds(self) -> float:
        """Return when a rate that is used up lets another task through."""
        waits = (
            (1.0 - bucket.tokens) / self.bounds[bound].per_second
            for bound, bucket in self.buckets.items()
            if self.left[bound].count <= 0
        )
        return max(0.0, min(waits, default=math.inf))


async def budget(
    database: Executor, wanted: Iterable[Keys], passed: Iterable[Passed], limited: Limited, *, most: int
) -> Budget:
    """Return what limits leave for tasks of these keys, at most so many each."""
    bounds = {bound: bounds for keys in wanted for bound, bounds in bounds_of(keys, limited)}
    admitted: Counter[Bound] = Counter()
    waiting: Counter[Bound] = Counter()
    for through in passed:
        for bound, _ in bounds_of(through.keys, limited):
            admitted[bound] += through.admitted
            waiting[bound] += through.waiting
    rated = {bound: each for bound, each in bounds.items() if each.rate is not None}
    stored = await admissions.buckets(database, rated) if rated else {}
    buckets = {bound: _filled(stored.get(bound), each, waiting[bound]) for bound, each in rated.items()}
    left = {}
    for bound, each in bounds.items():
        count = most if each.concurrency is None else min(most, each.concurrency - admitted[bound])
        left[bound] = Left(count if bound not in buckets else min(count, int(buckets[bound].tokens + _ROUNDING)))
    changed = (bound for bound, before in stored.items() if before.waiting != waiting[bound])
    return Budget(bounds, left, buckets, frozenset(changed))


def _filled(before: Bucket | None, bounds: Bounds, waiting: int) -> Bucket:
    """Return what is in a bucket now.

    What is let through and has not started keeps its place in it: it may start at any moment, together with all that
    the bucket has. When something has started is not known, so that its place fills from now on.
    """
    if before is None:
        return Bucket(bounds.capacity - waiting, waiting)
    filled = before.tokens + max(0.0, before.age_seconds) * bounds.per_second
    return Bucket(min(filled, bounds.capacity - max(before.waiting, waiting)), waiting)
