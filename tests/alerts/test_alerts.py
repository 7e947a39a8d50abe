"""Every alert fires and is silent when it should, says what it is about, and has a runbook that works."""

import re
from pathlib import Path

import pytest
import yaml

from bobrai.telemetry.metrics import CATALOGUE
from tests.alerts.rules import (
    CASES,
    FILES,
    RUNBOOK_BASE,
    RUNBOOKS,
    Rule,
    alerts,
    metrics_of,
    names,
    rules,
    run_promtool,
)
from tests.charts.helm import CRD_APIS, render
from tests.support.run_folder import RunFolder

SECTIONS = ["What it means", "How to confirm", "What to do", "How to prevent it"]
FOREIGN = {
    "rabbitmq_prometheus": {
        "rabbitmq_unreachable_cluster_peers_count",
        "rabbitmq_alarms_memory_used_watermark",
        "rabbitmq_alarms_free_disk_space_watermark",
        "rabbitmq_disk_space_available_bytes",
        "rabbitmq_process_resident_memory_bytes",
        "rabbitmq_resident_memory_limit_bytes",
    },
    "pgbouncer_exporter": {
        "pgbouncer_pools_client_waiting_connections",
        "pgbouncer_pools_client_maxwait_seconds",
        "pgbouncer_pools_server_active_connections",
    },
    "CloudNativePG": {
        "cnpg_pgbouncer_pools_cl_waiting",
        "cnpg_collector_last_available_backup_timestamp",
        "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp",
    },
    "kubelet": {"kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"},
    "kube-state-metrics": {
        "kube_statefulset_replicas",
        "kube_statefulset_status_replicas_ready",
        "kube_cronjob_created",
        "kube_cronjob_status_last_successful_time",
    },
}
"""What other programs export, as their sources or a real one say."""


def known() -> set[str]:
    """Every metric that an expression may name."""
    own = {name + suffix for name, metric in CATALOGUE.items() for suffix in _suffixes(metric.kind)}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    return own | recorded | set().union(*FOREIGN.values())


def _suffixes(kind: str) -> tuple[str, ...]:
    return ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_prometheus_takes_the_rules(run_folder: RunFolder, file: Path) -> None:
    run_promtool(run_folder, "check", "rules", str(file))


@pytest.mark.parametrize("name", names())
def test_an_alert_fires_and_is_silent_when_it_should(run_folder: RunFolder, name: str) -> None:
    run_promtool(run_folder, "test", "rules", str(CASES / f"{name}.yaml"))


@pytest.mark.parametrize("name", names())
def test_an_alert_has_a_case_for_each_severity_and_for_silence(name: str) -> None:
    fired, silent = set(), []
    for case in yaml.safe_load((CASES / f"{name}.yaml").read_text())["tests"]:
        checks = case["alert_rule_test"]
        assert {check["alertname"] for check in checks} == {name}
        expected = [alert for check in checks for alert in check["exp_alerts"]]
        fired |= {alert["exp_labels"]["severity"] for alert in expected}
        if not expected:
            silent.append({re.split(r"[{ ]", series["series"])[0] for series in case["input_series"]})
    assert fired == {rule["labels"]["severity"] for rule in alerts() if rule["alert"] == name}
    assert silent, "no case in which it is silent"
    assert all(series & known() for series in silent), "a silence without the metric proves nothing"


def test_there_is_no_case_and_no_runbook_for_an_alert_that_is_gone() -> None:
    assert {file.stem for file in CASES.glob("*.yaml")} == set(names())
    assert {file.stem for file in RUNBOOKS.glob("*.md")} == set(names())


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_an_alert_says_what_it_is_about(alert: Rule) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning"}
    annotations = alert["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert "{{ $labels.namespace }}" in annotations["summary"]
    assert annotations["runbook_url"] == f"{RUNBOOK_BASE}{alert['alert']}.md"


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: rule.get("alert", rule.get("record")))
def test_a_rule_keeps_the_namespace_and_names_metrics_that_exist(rule: Rule) -> None:
    expression = rule["expr"]
    assert metrics_of(expression) - known() == set()
    assert "without" not in expression
    for labels in re.findall(r"\bby\s*\(([^)]*)\)", expression):
        assert "namespace" in labels.split(", ")[0], labels
    assert not re.search(r"\b(sum|min|max|avg|count|group)\s*\(", expression), "an aggregation without `by`"


@pytest.mark.parametrize("name", names())
def test_a_runbook_has_its_sections_in_order_and_commands(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == SECTIONS
    assert "```sh\n" in text.partition("## What to do")[2]


@pytest.mark.parametrize("name", names())
def test_a_runbooks_queries_are_promql_over_metrics_that_exist(
    run_folder: RunFolder, tmp_path: Path, name: str
) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    queries = [
        line for block in re.findall(r"```promql\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()
    ]
    assert queries
    assert set().union(*map(metrics_of, queries)) - known() == set()
    made = [{"record": f"check:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": made}]}))
    run_promtool(run_folder, "check", "rules", str(file))


@pytest.mark.parametrize("name", names())
def test_a_runbooks_commands_name_objects_of_the_chart(name: str) -> None:
    rendered = render()
    kinds = {"deployment": "Deployment", "statefulset": "StatefulSet", "service": "Service", "cronjob": "CronJob"}
    kinds |= {"secret": "Secret"}
    blocks = re.findall(r"```sh\n(.*?)```", (RUNBOOKS / f"{name}.md").read_text(), flags=re.DOTALL)
    for kind, wanted in re.findall(rf"\b({'|'.join(kinds)})/([a-z0-9-]+)", "\n".join(blocks)):
        assert rendered.find(kinds[kind], wanted), f"{kind}/{wanted}"


def test_the_chart_ships_every_rule_as_it_is() -> None:
    values = {"monitoring": {"rules": {"enabled": True}}}
    shipped = render(values, api_versions=CRD_APIS).one("PrometheusRule", "bobrai-alerts").spec["groups"]
    assert [rule for group in shipped for rule in group["rules"]] == list(rules())


def test_the_page_names_every_alert() -> None:
    page = (RUNBOOKS.parent / "monitoring.md").read_text()
    assert [name for name in names() if f"(runbooks/{name}.md)" not in page] == []
