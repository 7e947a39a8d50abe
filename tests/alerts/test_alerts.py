"""Every alert fires and is silent when it should, and says what it is about; `test_runbooks.py` tries its runbook."""

import re
from pathlib import Path

import pytest
import yaml

from tests.alerts.rules import (
    CASES,
    FILES,
    RUNBOOK_BASE,
    RUNBOOKS,
    Rule,
    alerts,
    groups,
    known,
    metrics_of,
    names,
    rules,
    run_promtool,
)
from tests.charts.helm import CRD_APIS, render
from tests.support.run_folder import RunFolder


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
    for labels in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        assert labels.split(", ")[0] == "namespace", labels
    assert "ignoring" not in expression
    assert not re.search(r"\b(sum|min|max|avg|count|group)\s*\(", expression), "an aggregation without `by`"


def test_the_chart_ships_every_group_as_it_is() -> None:
    values = {"monitoring": {"rules": {"enabled": True}}}
    shipped = render(values, api_versions=CRD_APIS).one("PrometheusRule", "bobrai-alerts").spec["groups"]
    assert shipped == list(groups())


def test_the_page_names_every_alert() -> None:
    page = (RUNBOOKS.parent / "monitoring.md").read_text()
    assert [name for name in names() if f"(runbooks/{name}.md)" not in page] == []
