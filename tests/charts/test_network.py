"""With network policies on, every part reaches what it needs, and a stranger reaches neither database nor broker."""

from typing import Any

import pytest

from tests.charts.helm import CI, CRD_APIS, Body, Rendered, render
from tests.charts.test_wiring import selected

STRANGER = {"app": "somebody-else"}
POOL = "worker-default"
EDGES = [
    ("smoke", "api", 8001),
    ("api", "pgbouncer", 6432),
    ("dispatcher", "pgbouncer", 6432),
    (POOL, "pgbouncer", 6432),
    ("external-metrics", "pgbouncer", 6432),
    ("api", "postgresql", 5432),  # its init container migrates
    ("dispatcher", "postgresql", 5432),  # it listens
    ("pgbouncer", "postgresql", 5432),
    ("backup", "postgresql", 5432),
    ("dispatcher", "rabbitmq", 5672),
    (POOL, "rabbitmq", 5672),
    ("rabbitmq", "rabbitmq", 4369),
    ("rabbitmq", "rabbitmq", 25672),
]


@pytest.fixture
def guarded() -> Rendered:
    return render(files=[CI / "network-policies-values.yaml"], api_versions=CRD_APIS)


def _labels(rendered: Rendered, component: str) -> dict[str, str]:
    pods = [pod for pod in rendered.pods() if pod.labels["app.kubernetes.io/component"] == component]
    found: dict[str, str] = pods[0].pod_metadata["labels"] if pods[0].kind != "Pod" else pods[0].labels
    return found


def _allows(rule: Body, source: dict[str, str], port: Any) -> bool:
    if rule.get("ports") and port not in [opened["port"] for opened in rule["ports"]]:
        return False
    peers = rule.get("from") or []
    return not peers or any(
        "namespaceSelector" not in peer and peer["podSelector"]["matchLabels"].items() <= source.items()
        for peer in peers
    )


def _reaches(rendered: Rendered, source: dict[str, str], component: str, port: int) -> bool:
    (target,) = {
        id(pod): pod for pod in rendered.pods() if pod.labels["app.kubernetes.io/component"] == component
    }.values()
    names = {
        opened["name"]
        for container in target.containers
        for opened in container.get("ports") or []
        if opened["containerPort"] == port
    }
    policies = [
        policy
        for policy in rendered.all("NetworkPolicy")
        if target in selected(rendered, policy.spec["podSelector"]["matchLabels"])
    ]
    assert policies, f"nothing guards {component}"
    rules = [rule for policy in policies for rule in policy.spec.get("ingress") or []]
    return any(_allows(rule, source, known) for rule in rules for known in (port, *names))


@pytest.mark.parametrize(("source", "component", "port"), EDGES, ids=str)
def test_a_part_reaches_what_it_needs(guarded: Rendered, source: str, component: str, port: int) -> None:
    assert _reaches(guarded, _labels(guarded, source), component, port)


CLOSED = [("api", 8001), ("pgbouncer", 6432), ("postgresql", 5432)]
CLOSED += [("rabbitmq", port) for port in (5672, 15672, 25672)]


@pytest.mark.parametrize(("component", "port"), CLOSED)
def test_a_stranger_does_not(guarded: Rendered, component: str, port: int) -> None:
    assert not _reaches(guarded, STRANGER, component, port)


def test_the_api_server_reaches_the_external_metrics_wherever_it_runs(guarded: Rendered) -> None:
    assert _reaches(guarded, {}, "external-metrics", 8443)


def test_nothing_is_closed_on_the_way_out(guarded: Rendered) -> None:
    """DNS, the database elsewhere, and whatever handlers call stay reachable."""
    for policy in guarded.all("NetworkPolicy"):
        assert "Egress" not in policy.spec["policyTypes"], policy


def test_every_lasting_pod_is_guarded(guarded: Rendered) -> None:
    for pod in guarded.pods():
        if pod.kind in {"Deployment", "StatefulSet"}:
            policies = [
                policy
                for policy in guarded.all("NetworkPolicy")
                if pod in selected(guarded, policy.spec["podSelector"]["matchLabels"])
            ]
            assert policies, pod


def test_without_the_value_there_is_no_policy() -> None:
    assert render().all("NetworkPolicy") == []
