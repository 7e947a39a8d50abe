"""Every part that has metrics is scraped, in either way, and nothing is asked of a port that is not there."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.charts.helm import CRD_APIS, Manifest, Rendered, refusal, render

ALWAYS = {"api", "dispatcher", "worker-default", "external-metrics", "rabbitmq"}
EXPORTERS = {"exporters": {"pgbouncer": {"enabled": True}, "postgresql": {"enabled": True}}}
WITH_EXPORTERS = ALWAYS | {"pgbouncer", "postgresql-exporter"}
COMPONENT = "app.kubernetes.io/component"
TELEGRAM = {"enabled": True, "existingSecret": "our-telegram"}


def rendered(**monitoring: Any) -> Rendered:
    return render({"monitoring": monitoring}, api_versions=CRD_APIS)


def ports(owner: Manifest) -> dict[str, int]:
    """The named ports of the pods that an object makes."""
    return {
        port["name"]: port["containerPort"] for container in owner.containers for port in container.get("ports", [])
    }


def selected(objects: Rendered, monitor: Manifest) -> Iterator[Manifest]:
    """The objects whose pods a PodMonitor finds."""
    wanted = monitor.spec["selector"]["matchLabels"]
    for owner in objects.pods():
        if wanted.items() <= (owner.pod_metadata.get("labels") or {}).items():
            yield owner


@pytest.mark.parametrize(("more", "parts"), [({}, ALWAYS), (EXPORTERS, WITH_EXPORTERS)], ids=["plain", "exporters"])
def test_each_part_has_a_pod_monitor_that_finds_its_pods_and_a_port_of_theirs(
    more: dict[str, Any], parts: set[str]
) -> None:
    objects = rendered(scrape="operator", labels={"release": "monitoring"}, **more)
    found = set()
    for monitor in objects.all("PodMonitor"):
        assert monitor.labels["release"] == "monitoring"
        owners = list(selected(objects, monitor))
        assert owners, f"{monitor} finds no pod"
        for owner in owners:
            assert {endpoint["port"] for endpoint in monitor.spec["podMetricsEndpoints"]} <= set(ports(owner))
        found |= {owner.pod_metadata["labels"][COMPONENT] for owner in owners}
    assert found == parts
    assert not [owner for owner in objects.pods() if "prometheus.io/scrape" in _annotations(owner)]


@pytest.mark.parametrize(("more", "parts"), [({}, ALWAYS), (EXPORTERS, WITH_EXPORTERS)], ids=["plain", "exporters"])
def test_without_the_operator_annotations_name_a_port_of_each_part(more: dict[str, Any], parts: set[str]) -> None:
    objects = rendered(**more)
    found = set()
    for owner in objects.pods():
        annotations = _annotations(owner)
        if annotations.get("prometheus.io/scrape") == "true":
            assert int(annotations["prometheus.io/port"]) in ports(owner).values(), owner
            found.add(owner.pod_metadata["labels"][COMPONENT])
    assert found == parts
    assert not objects.all("PodMonitor")


def test_nothing_of_the_operator_is_there_unless_it_is_asked_for() -> None:
    assert {each.api_version for each in render() if "monitoring.coreos.com" in each.api_version} == set()


@pytest.mark.parametrize(
    "monitoring",
    [{"scrape": "operator"}, {"rules": {"enabled": True}}],
    ids=["PodMonitor", "PrometheusRule"],
)
def test_what_the_cluster_does_not_know_is_refused_with_the_way_out(monitoring: dict[str, Any]) -> None:
    said = refusal({"monitoring": monitoring})
    assert "monitoring.coreos.com" in said or "Prometheus Operator" in said


@pytest.mark.parametrize("chat", [-1001234567890, "-1001234567890"], ids=["number", "text"])
def test_a_telegram_chat_is_a_number_of_64_bits(chat: int | str) -> None:
    alerting = {"enabled": True, "telegram": {**TELEGRAM, "chatId": chat}}
    assert "\n          chatID: -1001234567890\n" in rendered(alerting=alerting).text


@pytest.mark.parametrize("wrong", [{"chatId": "@ops"}, {"chatId": "-100.5"}, {"chatId": 7, "threadId": "#general"}])
def test_a_telegram_chat_that_is_no_number_is_refused(wrong: dict[str, Any]) -> None:
    alerting = {"enabled": True, "telegram": {**TELEGRAM, **wrong}}
    assert f"{next(reversed(wrong))} must be a whole number" in refusal(
        {"monitoring": {"alerting": alerting}}, api_versions=CRD_APIS
    )


def test_links_of_alerts_and_dashboards_follow_the_place_of_the_runbooks() -> None:
    ours = "https://wiki.example.com/bobrai/"
    objects = rendered(rules={"enabled": True, "runbookBaseUrl": ours}, dashboards={"enabled": True})
    assert f"{ours}BobraiOutboxLag.md" in objects.text
    assert "github.com/bobrai/bobrai/blob/main/docs/runbooks" not in objects.text


def _annotations(owner: Manifest) -> dict[str, str]:
    return owner.pod_metadata.get("annotations") or {}
