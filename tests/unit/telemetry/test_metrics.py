"""Metrics are named as Prometheus wants them, explained, and never labelled with what a client can make up."""

import inspect

from prometheus_client.metrics import Counter, Histogram, MetricWrapperBase

from bobrai.telemetry import metrics

DECLARED = [value for _, value in inspect.getmembers(metrics) if isinstance(value, MetricWrapperBase)]
CLOSED_SETS = set(
    "queue type outcome status state reason method route batch loop dependency version process".split()  # noqa: SIM905
)


def test_every_metric_belongs_to_bobrai_and_is_explained() -> None:
    assert len(DECLARED) > 30
    for metric in DECLARED:
        assert metric._name.startswith("bobrai_"), metric._name
        assert metric._documentation.endswith("."), metric._name


def test_labels_are_closed_sets() -> None:
    assert {label for metric in DECLARED for label in metric._labelnames} <= CLOSED_SETS


def test_times_are_in_seconds_and_counters_count_things() -> None:
    for metric in DECLARED:
        if isinstance(metric, Histogram):
            assert metric._name.endswith(("_seconds", "_size", "_bundle")), metric._name
        if isinstance(metric, Counter):
            assert not metric._name.endswith("_total"), "the library adds it"


def test_the_exposition_is_text_that_names_them() -> None:
    body, content_type = metrics.exposition()
    assert content_type.startswith("text/plain")
    text = body.decode()
    assert [metric._name for metric in DECLARED if f"# HELP {metric._name}" not in text] == []
