"""A changed value restarts exactly the pods that read it, and a new number of the chart restarts none."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.charts.helm import CHART, CI, CRD_APIS, Rendered, render

EXISTING = CI / "existing-secrets-values.yaml"
OURS = {"api", "dispatcher", "worker-default", "external-metrics"}
WAITING = {"api", "dispatcher", "worker-default"}
"""Their pods run the API's image too: it migrates, or waits for the schema."""

CHANGES: list[tuple[dict[str, Any], set[str]]] = [
    ({"api": {"maxBacklog": 7}}, {"api"}),
    ({"api": {"config": {"BOBRAI_LOG_LEVEL": "debug"}}}, {"api"}),
    ({"dispatcher": {"retentionSeconds": 60}}, {"dispatcher"}),
    ({"dispatcher": {"resources": {"limits": {"memory": "1Gi"}}}}, {"dispatcher"}),
    ({"externalMetrics": {"config": {"BOBRAI_LOG_LEVEL": "debug"}}}, {"external-metrics"}),
    ({"workers": {"pools": {"default": {"concurrency": 7}}}}, {"worker-default"}),
    ({"workers": {"pools": {"default": {"image": {"tag": "7"}}}}}, {"worker-default"}),
    ({"images": {"worker": {"tag": "7"}}}, {"worker-default"}),
    ({"images": {"pgbouncer": {"tag": "1.25.9"}}}, {"pgbouncer"}),
    ({"images": {"rabbitmq": {"tag": "4.3.9"}}}, {"rabbitmq"}),
    ({"handlers": {"inline": {"tasks.py": "pass"}}}, {"worker-default"}),
    ({"pgbouncer": {"poolSize": 12}}, {"pgbouncer"}),
    ({"postgresql": {"parameters": {"work_mem": "16MB"}}}, {"postgresql"}),
    ({"rabbitmq": {"policies": {"maxLength": 7}}}, {"rabbitmq"}),
    ({"rabbitmq": {"parameters": {"heartbeat": "30"}}}, {"rabbitmq"}),
    ({"pod": {"nodeSelector": {"disk": "fast"}}}, {*OURS, "pgbouncer", "postgresql", "rabbitmq"}),
    # what no pod reads
    ({"api": {"service": {"annotations": {"a": "b"}}}}, set()),
    ({"api": {"autoscaling": {"maxReplicas": 11}}}, set()),
    ({"dispatcher": {"replicas": 5}}, set()),
    ({"workers": {"pools": {"default": {"autoscaling": {"maxReplicas": 11}}}}}, set()),
    ({"ingress": {"enabled": True, "hosts": ["tasks.example.com"]}}, set()),
    ({"networkPolicy": {"enabled": True}}, set()),
    ({"commonLabels": {"team": "payments"}, "commonAnnotations": {"example.com/owner": "payments"}}, set()),
    ({"backup": {"keepDays": 30}}, set()),
]


def _pods(rendered: Rendered) -> dict[str, Any]:
    return {
        item.labels["app.kubernetes.io/component"]: item.spec["template"]
        for item in rendered
        if item.kind in {"Deployment", "StatefulSet"}
    }


@pytest.mark.parametrize(("values", "restarted"), CHANGES, ids=lambda value: str(sorted(value))[:70])
def test_a_change_restarts_exactly_its_readers(values: dict[str, Any], restarted: set[str]) -> None:
    before, after = _pods(render(files=[EXISTING])), _pods(render(values, files=[EXISTING]))
    assert before.keys() == after.keys()
    assert {component for component in before if before[component] != after[component]} == restarted


def test_changed_inline_handlers_restart_the_workers() -> None:
    def workers(text: str) -> Any:
        return _pods(render({"handlers": {"inline": {"tasks.py": text}}}, files=[EXISTING]))["worker-default"]

    assert workers("pass") != workers("pass  # again")


def _released(folder: Path, old: str, new: str) -> Path:
    chart = folder / "bobrai"
    shutil.copytree(CHART, chart)
    text = (chart / "Chart.yaml").read_text()
    assert f"\n{old}" in text
    (chart / "Chart.yaml").write_text(text.replace(f"\n{old}", f"\n{new}"))
    return chart


def test_a_new_version_of_the_chart_restarts_nothing(tmp_path: Path) -> None:
    chart = _released(tmp_path, "version: 0.1.0", "version: 0.1.1")
    assert _pods(render(files=[EXISTING], chart=chart)) == _pods(render(files=[EXISTING]))


def test_a_new_version_of_the_product_restarts_its_own_pods_and_no_server(tmp_path: Path) -> None:
    chart = _released(tmp_path, "appVersion: 0.1.0", "appVersion: 0.1.1")
    before, after = _pods(render(files=[EXISTING])), _pods(render(files=[EXISTING], chart=chart))
    assert {component for component in before if before[component] != after[component]} == OURS


IMMUTABLE = ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates")


def test_an_upgrade_touches_no_field_that_kubernetes_forbids_to_change(tmp_path: Path) -> None:
    chart = _released(tmp_path, "version: 0.1.0", "version: 9.9.9")
    values = {"commonLabels": {"team": "payments"}, "commonAnnotations": {"a": "b"}, "pod": {"labels": {"c": "d"}}}
    after = render(values, files=[EXISTING], chart=chart)
    for old in render(files=[EXISTING]):
        if old.kind in {"StatefulSet", "Deployment"}:
            new = after.one(old.kind, old.name)
            assert {key: old.spec.get(key) for key in IMMUTABLE} == {key: new.spec.get(key) for key in IMMUTABLE}


@pytest.mark.parametrize("shape_name", ["default", "inline-handlers", "operators"])
def test_whoever_mounts_a_config_map_restarts_with_it(shape_name: str) -> None:
    rendered = render(files=[CI / f"{shape_name}-values.yaml"], api_versions=CRD_APIS)
    for workload in rendered:
        if workload.kind in {"Deployment", "StatefulSet"}:
            mounted = {volume["configMap"]["name"] for volume in workload.pod["volumes"] if "configMap" in volume}
            sums = [key for key in workload.pod_metadata.get("annotations", {}) if key.startswith("checksum/")]
            assert len(sums) >= len(mounted), workload
