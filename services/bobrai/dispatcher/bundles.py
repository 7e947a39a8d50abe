"""How many hints travel in one message. Pure arithmetic.

In: due hints of one queue, most urgent first, and what its workers can do. Out: chunks that become one message each.
A message costs far more than a hint, and a bundle is what one worker takes alone: so as many as it finishes in a
moment, and never so many that another worker is left idle. Next: `relay.py` publishes them.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from bobrai.dispatcher.fleet import Crew
from bobrai.store.outbox import DueHint

BUNDLE_SECONDS: Final = 0.05  # of one worker's work: what an idle neighbour may at most be kept waiting for
MAX_BUNDLE: Final = 500  # hints; more would not make the message's own cost visibly smaller


def bundle_size(due: int, crew: Crew) -> int:
    """Return how many of a queue's due hints go into one message; 1 while nothing is known or tasks are slow."""
    by_time = int(crew.slowest_per_second * BUNDLE_SECONDS)
    by_share = due // max(1, crew.workers)
    return max(1, min(by_time, by_share, MAX_BUNDLE))


def bundles(due: Sequence[DueHint], size: int) -> Iterator[Sequence[DueHint]]:
    """Cut hints that are sorted by priority into chunks of at most ``size``, each of one priority."""
    for _, same in groupby(due, key=lambda hint: hint.priority):
        urgent_alike = list(same)
        for start in range(0, len(urgent_alike), size):
            yield urgent_alike[start : start + size]
