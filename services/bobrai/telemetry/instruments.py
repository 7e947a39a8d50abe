"""Counters, histograms and gauges for places that the library's own are too slow or too forgetful for.

In: counts and durations from one thread of a process, usually the event loop's. Out: metric families, made when
somebody scrapes. The library guards each number with a lock and looks buckets up one by one, 0.6 to 2 µs each time; a
worker counts eight things per task. Here a number is a plain attribute: the scraping thread may read one that is a
moment old, never a wrong one. Next: `declaring.py`, then `metrics.py`, which says what there is.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

Child = TypeVar("Child")


class _Labelled(Collector, Generic[Child]):
    """Children by their label values; without labels there is one, from the start."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], make: Callable[[], Child]) -> None:
        self.name = name
        self.documentation = documentation
        self.label_names = tuple(labels)
        self._make = make
        self._children: dict[tuple[str, ...], Child] = {}
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Child:
        """Return the child of these values, in the order in which the labels were declared."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} has the labels {self.label_names}, not {len(values)} values")
            child = self._children.setdefault(values, self._make())
        return child

    def remove_by_labels(self, labels: Mapping[str, str]) -> None:
        """Forget the children with these label values, under the library's own name for it."""
        wanted = [(self.label_names.index(name), value) for name, value in labels.items()]
        for values, _ in self._all():
            if all(values[at] == value for at, value in wanted):
                self._children.pop(values, None)

    def _all(self) -> list[tuple[tuple[str, ...], Child]]:
        return list(self._children.items())  # one step for the interpreter, whoever adds a child meanwhile


class CounterChild:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Count; from one thread only."""
        self.value += amount


class FastCounter(_Labelled[CounterChild]):
    """A counter; its name is given without `_total`, as the library wants it."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, documentation, labels, CounterChild)

    def inc(self, amount: float = 1) -> None:
        """Count, when there are no labels."""
        self.labels().inc(amount)

    def describe(self) -> Iterable[Metric]:
        """Return the family without samples."""
        return [CounterMetricFamily(self.name, self.documentation, labels=self.label_names)]

    def collect(self) -> Iterable[Metric]:
        """Return the family."""
        family = CounterMetricFamily(self.name, self.documentation, labels=self.label_names)
        for values, child in self._all():
            family.add_metric(values, child.value)
        return [family]


class HistogramChild:
    """How often a value fell into each bucket, and the latest trace of each."""

    __slots__ = ("_bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, tuple[str, float, float]] = {}

    def observe(self, value: float, trace_id: str = "") -> None:
        """Note a value, and the trace that it can be seen in; from one thread only."""
        index = bisect_left(self._bounds, value)
        self.counts[index] += 1
        self.sum += value
        if trace_id:
            self.exemplars[index] = (trace_id, value, time.time())


class FastHistogram(_Labelled[HistogramChild]):
    """A histogram with the given upper bounds, to which +Inf is added."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = (), *, buckets: Sequence[float]) -> None:
        bounds = tuple(float(bound) for bound in buckets)
        self.bounds = bounds
        self._names = [*map(str, bounds), "+Inf"]
        super().__init__(name, documentation, labels, lambda: HistogramChild(bounds))

    def observe(self, value: float, trace_id: str = "") -> None:
        """Note a value, when there are no labels."""
        self.labels().observe(value, trace_id)

    def describe(self) -> Iterable[Metric]:
        """Return the family without samples."""
        return [HistogramMetricFamily(self.name, self.documentation, labels=self.label_names)]

    def collect(self) -> Iterable[Metric]:
        """Return the family."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.label_names)
        for values, child in self._all():
            buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
            total = 0
            for index, count in enumerate(list(child.counts)):
                total += count
                exemplar = child.exemplars.get(index)
                if exemplar is None:
                    buckets.append((self._names[index], total))
                else:
                    trace_id, value, at = exemplar
                    buckets.append((self._names[index], total, Exemplar({"trace_id": trace_id}, value, at)))
            family.add_metric(values, buckets, child.sum)
        return [family]


class ExpiringGauge(Collector):
    """A gauge that speaks for the whole installation: each series is shown only as long as it is surely this process's.

    Whoever sets a value says for how long it may be shown; then the series is gone, also when this process was frozen
    or cut off meanwhile, so that no two processes ever show the same one.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        self.name = name
        self.documentation = documentation
        self.label_names = tuple(labels)
        self._series: dict[tuple[str, ...], tuple[float, float]] = {}

    def set(self, values: Sequence[str], value: float, *, until: float) -> None:
        """Show a value until a moment of the monotonic clock."""
        self._series[tuple(values)] = (value, until)

    def remove(self, *values: str) -> None:
        """Show the series no longer; nothing when it was not shown."""
        self._series.pop(values, None)

    def remove_by_labels(self, labels: Mapping[str, str]) -> None:
        """Show none of the series with these label values any longer."""
        wanted = [(self.label_names.index(name), value) for name, value in labels.items()]
        for values in list(self._series):
            if all(values[at] == value for at, value in wanted):
                self.remove(*values)

    def describe(self) -> Iterable[Metric]:
        """Return the family without samples."""
        return [GaugeMetricFamily(self.name, self.documentation, labels=self.label_names)]

    def collect(self) -> Iterable[Metric]:
        """Return the family of the series that have not expired."""
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.label_names)
        for values, (value, until) in list(self._series.items()):
            if time.monotonic() < until:
                family.add_metric(values, value)
        return [family]
