"""How a metric is declared: its name, kind, meaning and labels go into one catalogue with the processes that export it.

In: the declarations of `metrics.py`. Out: collectors of the library or of `instruments.py`, and what the
table of docs/metrics.md says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.registry import Collector

from bobrai.telemetry.instruments import ExpiringGauge, FastCounter, FastHistogram

Process = Literal["api", "dispatcher", "worker", "external-metrics"]
EVERY: Final[tuple[Process, ...]] = ("api", "dispatcher", "worker")


@dataclass(frozen=True, slots=True)
class Declared:
    """What the catalogue knows of a metric; ``name`` is as Prometheus stores it, ``_total`` included."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...]
    by: tuple[Process, ...]
    once: bool
    collector: Collector


CATALOGUE: Final[dict[str, Declared]] = {}


def _declare(
    collector: Collector,
    name: str,
    kind: Literal["counter", "gauge", "histogram"],
    meaning: str,
    labels: Sequence[str],
    by: Sequence[Process],
    *,
    once: bool = False,
) -> None:
    CATALOGUE[name] = Declared(name, kind, meaning, tuple(labels), tuple(by), once, collector)


def counter(name: str, meaning: str, labels: Sequence[str] = (), *, by: Sequence[Process]) -> Counter:
    """Declare a counter; any thread may count."""
    counter = Counter(name.removesuffix("_total"), meaning, labels)
    _declare(counter, name, "counter", meaning, labels, by)
    return counter


def fast_counter(name: str, meaning: str, labels: Sequence[str] = (), *, by: Sequence[Process]) -> FastCounter:
    """Declare a counter of one thread."""
    counter = FastCounter(name.removesuffix("_total"), meaning, labels)
    REGISTRY.register(counter)
    _declare(counter, name, "counter", meaning, labels, by)
    return counter


def gauge(name: str, meaning: str, labels: Sequence[str] = (), *, by: Sequence[Process]) -> Gauge:
    """Declare a gauge."""
    gauge = Gauge(name, meaning, labels)
    _declare(gauge, name, "gauge", meaning, labels, by)
    return gauge


def shared_gauge(name: str, meaning: str, labels: Sequence[str]) -> ExpiringGauge:
    """Declare a gauge of the whole installation, which one dispatcher at a time shows."""
    gauge = ExpiringGauge(name, meaning, labels)
    REGISTRY.register(gauge)
    _declare(gauge, name, "gauge", meaning, labels, ("dispatcher",), once=True)
    return gauge


def histogram(
    name: str, meaning: str, labels: Sequence[str] = (), *, by: Sequence[Process], buckets: Sequence[float]
) -> Histogram:
    """Declare a histogram; any thread may observe. Buckets are upper bounds, in the unit of the name."""
    histogram = Histogram(name, meaning, labels, buckets=buckets)
    _declare(histogram, name, "histogram", meaning, labels, by)
    return histogram


def fast_histogram(
    name: str, meaning: str, labels: Sequence[str] = (), *, by: Sequence[Process], buckets: Sequence[float]
) -> FastHistogram:
    """Declare a histogram of one thread; the same buckets."""
    histogram = FastHistogram(name, meaning, labels, buckets=buckets)
    REGISTRY.register(histogram)
    _declare(histogram, name, "histogram", meaning, labels, by)
    return histogram
