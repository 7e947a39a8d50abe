"""Metrics are named as Prometheus wants them, explained, and never labelled with what a client can make up."""

import subprocess
import sys
from collections.abc import Callable, Iterable

import pytest
from prometheus_client import REGISTRY, Counter, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from bobrai.telemetry import exposition, logs, metrics
from bobrai.telemetry.instruments import ExpiringGauge, FastCounter, FastHistogram
from bobrai.telemetry.metrics import CATALOGUE

CLOSED_SETS = {"issuer", "limit"} | set(
    "queue type outcome status state reason method route batch loop dependency version process pool kind cause".split()  # noqa: SIM905
)
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


def test_every_metric_belongs_to_bobrai_and_is_explained() -> None:
    assert len(CATALOGUE) > 50
    for name, metric in CATALOGUE.items():
        assert name.startswith("bobrai_"), name
        assert metric.meaning.endswith("."), name
        assert metric.by, name


def test_everything_that_is_registered_is_in_the_catalogue() -> None:
    registered = {family.name for family in REGISTRY.collect() if family.name.startswith("bobrai_")}
    assert registered == {name.removesuffix("_total") for name in CATALOGUE}


def test_labels_are_closed_sets() -> None:
    assert {label for metric in CATALOGUE.values() for label in metric.labels} <= CLOSED_SETS


def test_names_say_unit_and_kind() -> None:
    for name, metric in CATALOGUE.items():
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert not name.endswith(("_count", "_sum", "_bucket")), name
        if metric.kind == "histogram":
            assert name.endswith(("_seconds", "_size", "_hints")), name


def test_the_exposition_is_text_that_names_them() -> None:
    body, content_type = exposition.render()
    assert content_type.startswith("text/plain")
    text = body.decode()
    assert [name for name in CATALOGUE if f"# HELP {name} " not in text] == []
    assert "_created" not in text


def test_openmetrics_is_served_to_whoever_asks_for_it() -> None:
    body, content_type = exposition.render(f"{OPENMETRICS},text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert {name.removesuffix("_total") for name in CATALOGUE} <= names


class Broken(Collector):
    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        raise SystemExit("no")


def _not_text() -> Collector:
    counter = Counter("mine", "Mine.", ["of"], registry=None)
    counter.labels("\udcff").inc()
    return counter


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
@pytest.mark.parametrize("make", [Broken, _not_text])
def test_a_metric_of_a_handler_that_cannot_be_shown_leaves_ours(make: Callable[[], Collector], accept: str) -> None:
    collector = make()
    with logs.captured() as lines:
        REGISTRY.register(collector)
        try:
            texts = [exposition.render(accept)[0].decode() for _ in range(2)]
        finally:
            REGISTRY.unregister(collector)
        exposition.render(accept)
    for text in texts:
        assert [name for name in CATALOGUE if f"# HELP {name.removesuffix('_total')}" not in text] == []
        assert "process_" in text
    assert [(line["event"], "render" in line["stack"]) for line in lines] == [("metrics.incomplete", True)]


@pytest.mark.parametrize("process", metrics.EVERY)
def test_a_process_exports_its_own_metrics_only(process: str) -> None:
    program = (
        "from bobrai.telemetry import exposition\n"
        f"exposition.export_as({process!r}, '1')\n"
        "print(exposition.render()[0].decode())\n"
        "assert {*exposition._OWN.collectors} == {*exposition.REGISTRY._collector_to_names}"
    )
    text = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    shown = {name for name in CATALOGUE if f"# HELP {name} " in text}
    assert shown == {name for name, metric in CATALOGUE.items() if process in metric.by}
    assert f'bobrai_build_info{{process="{process}",version="1"}} 1.0' in text


def test_a_fast_counter_counts_by_label() -> None:
    counter = FastCounter("things", "Things.", ["queue"])
    counter.labels("a").inc()
    counter.labels("a").inc(2)
    counter.labels("b").inc()
    (family,) = counter.collect()
    assert {sample.labels["queue"]: sample.value for sample in family.samples} == {"a": 3, "b": 1}
    with pytest.raises(ValueError, match="labels"):
        counter.labels("a", "b")


def test_a_fast_histogram_counts_as_the_librarys_own_does() -> None:
    from prometheus_client import CollectorRegistry, Histogram

    bounds = (0.1, 1, 5)
    own = FastHistogram("seconds", "Seconds.", buckets=bounds)
    library = Histogram("seconds", "Seconds.", buckets=bounds, registry=CollectorRegistry())
    for value in (0, 0.1, 0.10001, 1, 4.9, 5, 5.1, 1e9):
        own.observe(value)
        library.observe(value)

    def samples(histogram: FastHistogram | Histogram) -> set[tuple[str, str, float]]:
        (family,) = histogram.collect()
        return {(s.name, s.labels.get("le", ""), s.value) for s in family.samples if not s.name.endswith("_created")}

    assert samples(own) == samples(library)


def test_an_exemplar_names_the_latest_trace_of_its_bucket() -> None:
    histogram = FastHistogram("seconds", "Seconds.", buckets=(0.1, 1))
    histogram.observe(0.5, "a" * 32)
    histogram.observe(0.6, "b" * 32)
    histogram.observe(0.7)
    (family,) = histogram.collect()
    by_bucket = {s.labels["le"]: s.exemplar for s in family.samples if s.name.endswith("_bucket")}
    assert by_bucket["1.0"] is not None
    assert by_bucket["1.0"].labels == {"trace_id": "b" * 32}
    assert by_bucket["0.1"] is None


def test_a_shared_gauge_goes_out_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("bobrai.telemetry.instruments.time.monotonic", lambda: now)
    gauge = ExpiringGauge("tasks", "Tasks.", ["queue"])
    gauge.set(("a",), 7, until=103)
    gauge.set(("b",), 8, until=105)
    assert len(next(iter(gauge.collect())).samples) == 2
    now = 103.0
    assert [sample.labels["queue"] for sample in next(iter(gauge.collect())).samples] == ["b"]
    gauge.remove("b")
    gauge.remove("never there")
    assert next(iter(gauge.collect())).samples == []
