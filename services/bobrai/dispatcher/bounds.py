"""What limits leave, counted by what they count. Arithmetic over what ``store/admissions`` reads.

In: the limits in force, what is let through, and what is left of rates. Out: how many tasks of some keys may still start.
Next: ``admission.py`` lets so many through, ``measuring.py`` counts what is kept back.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from bobrai.dispatcher.turns import Left
from bobrai.domain.limiting import Bounds
from bobrai.store import admissions
from bobrai.store.admissions import Bound, Keys, Limited, Passed
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


class Budget(NamedTuple):
    """What is left of each bound, and the tokens of those that are rates."""

    bounds: Mapping[Bound, Bounds]
    left: Mapping[Bound, Left]
    tokens: Mapping[Bound, float]

    def of(self, keys: Keys, limited: Limited) -> list[Left]:
        """Return what is left of each bound on tasks of these keys."""
        return [self.left[bound] for bound, _ in bounds_of(keys, limited)]

    def after(self, started: Iterable[Keys], limited: Limited) -> dict[Bound, tuple[float, float]]:
        """Return the tokens that are left once these tasks may start, and the seconds until all are there again."""
        spent = Counter(bound for keys in started for bound, _ in bounds_of(keys, limited) if bound in self.tokens)
        found = {}
        for bound, count in spent.items():
            tokens = self.tokens[bound] - count
            found[bound] = (tokens, (self.bounds[bound].capacity - tokens) / self.bounds[bound].per_second)
        return found


async def budget(
    transaction: Executor, wanted: Iterable[Keys], passed: Iterable[Passed], limited: Limited, *, most: int
) -> Budget:
    """Return what limits leave for tasks of these keys, at most so many each.

    What is let through and has not started keeps its place in a rate's bucket: it may start at any moment, together
    with all that the bucket has.
    """
    bounds = {bound: bounds for keys in wanted for bound, bounds in bounds_of(keys, limited)}
    admitted: Counter[Bound] = Counter()
    unstarted: Counter[Bound] = Counter()
    for through in passed:
        for bound, _ in bounds_of(through.keys, limited):
            admitted[bound] += through.admitted
            unstarted[bound] += through.waiting
    rated = {bound: each for bound, each in bounds.items() if each.rate is not None}
    known = await admissions.buckets(transaction, rated) if rated else {}
    tokens = {}
    for bound, each in rated.items():
        there, age = known.get(bound, (float(each.capacity), 0.0))
        tokens[bound] = min(there + max(age, 0.0) * each.per_second, each.capacity - unstarted[bound])
    left = {}
    for bound, each in bounds.items():
        count = most if each.concurrency is None else min(most, each.concurrency - admitted[bound])
        left[bound] = Left(count if bound not in tokens else min(count, int(tokens[bound] + _ROUNDING)))
    return Budget(bounds, left, tokens)
