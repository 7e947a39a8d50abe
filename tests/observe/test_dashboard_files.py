"""What can be said of the dashboards without a server: they are whole, uniform, and name only what exists."""

import json
import re
from itertools import combinations
from typing import Any

import pytest
import yaml

from bobrai.telemetry.metrics import CATALOGUE
from charts.dashboards import __main__ as generator
from charts.dashboards.promql import EXPORTERS
from tests.observe import files

# a ConfigMap that `kubectl apply` can handle, with room for its metadata
MOST_BYTES = 240_000
SELECTOR = re.compile(r"([a-zA-Z_]\w*)\{([^}]*)\}")
BASE = "https://github.com/bobrai/bobrai/blob/main/"

DASHBOARDS = files.dashboards()
EACH = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=list(DASHBOARDS))
Json = dict[str, Any]


def test_there_are_the_five_dashboards_with_uids_for_good() -> None:
    assert {name: each["uid"] for name, each in DASHBOARDS.items()} == {
        "overview.json": "bobrai-overview",
        "queues.json": "bobrai-queues",
        "workers.json": "bobrai-workers",
        "api.json": "bobrai-api",
        "data-plane.json": "bobrai-data-plane",
    }


def test_the_files_are_what_the_source_makes() -> None:
    assert generator.stale() == []


@EACH
def test_a_dashboard_is_small_enough_for_a_config_map(dashboard: Json) -> None:
    assert len(json.dumps(dashboard, indent=1).encode()) < MOST_BYTES


@EACH
def test_panels_do_not_overlap_and_stay_in_the_grid(dashboard: Json) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        assert place["h"] > 0
    for a, b in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (a, b)


@EACH
def test_every_panel_has_a_unit_and_says_what_good_looks_like(dashboard: Json) -> None:
    for panel in files.panels(dashboard):
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert "Good:" in panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None
        assert panel["title"]


@EACH
def test_ids_and_titles_are_unique(dashboard: Json) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)


@EACH
def test_every_panel_asks_the_chosen_datasource(dashboard: Json) -> None:
    assert "__inputs" not in dashboard
    asked = [*files.panels(dashboard), *(target for panel in files.panels(dashboard) for target in panel["targets"])]
    assert {each["datasource"]["uid"] for each in asked} == {"${datasource}"}
    assert dashboard["templating"]["list"][0]["type"] == "datasource"


@EACH
def test_variables_take_several_values_or_all(dashboard: Json) -> None:
    variables = dashboard["templating"]["list"][1:]
    assert {"namespace"} <= {each["name"] for each in variables} <= {"namespace", "queue", "type"}
    for each in variables:
        assert each["multi"]
        assert each["includeAll"]
        assert each["allValue"] == ".*"


@EACH
def test_queries_use_only_variables_that_the_dashboard_offers(dashboard: Json) -> None:
    offered = {each["name"] for each in dashboard["templating"]["list"]} | {"__rate_interval"}
    texts = [target["expr"] for panel in files.panels(dashboard) for target in panel["targets"]]
    texts += [each["expr"] for each in dashboard["annotations"]["list"]]
    for text in texts:
        assert set(re.findall(r"\$(\w+)", text)) <= offered, text


@EACH
def test_links_lead_to_runbooks_of_alerts_that_exist(dashboard: Json) -> None:
    alerts = set()
    for path in (files.REPOSITORY / "charts" / "bobrai" / "alerts").glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            alerts |= {rule["alert"] for rule in group["rules"] if "alert" in rule}
    links = [link["url"] for panel in files.panels(dashboard) for link in panel["links"]]
    assert links
    for url in links:
        assert url.startswith(BASE)
        page = files.REPOSITORY / url.removeprefix(BASE)
        assert page.exists(), url
        assert page.stem in alerts, url


def test_queries_name_only_metrics_that_somebody_exports_and_only_in_the_chosen_namespaces() -> None:
    for query in files.queries():
        bare = re.sub(r'"[^"]*"', '""', query.promql)
        selectors = re.findall(SELECTOR, bare)
        assert selectors, query
        for metric, matchers in selectors:
            base = re.sub(r"_(bucket|sum|count)$", "", metric)
            histogram = base in CATALOGUE and CATALOGUE[base].kind == "histogram"
            assert metric in CATALOGUE or histogram or metric.startswith(tuple(EXPORTERS)), query
            assert 'namespace=~""' in matchers, query
        # a metric without a selector would be of every namespace
        assert not re.search(rf"\b({'|'.join(['bobrai_', *EXPORTERS])})", re.sub(SELECTOR, "", bare)), query


def test_every_metric_of_ours_is_on_a_dashboard() -> None:
    shown = {metric for query in files.queries() for metric, _ in re.findall(SELECTOR, query.promql)}
    assert {name for name in CATALOGUE if not shown & {name, f"{name}_bucket", f"{name}_sum"}} == set()


def test_figures_of_the_whole_installation_are_never_added_up_over_processes() -> None:
    for query in files.queries():
        for metric in set(re.findall(r"bobrai_\w+", query.promql)):
            if metric in CATALOGUE and CATALOGUE[metric].once:
                labels = ", ".join(("namespace", *CATALOGUE[metric].labels))
                counted_once = query.promql.count(f"max by ({labels}) ({metric}{{")
                assert query.promql.count(f"{metric}{{") == counted_once, query


def test_single_tasks_are_shown_where_times_are() -> None:
    shown = [query for query in files.queries() if query.exemplar]
    assert {re.findall(r"bobrai_\w+?_seconds", query.promql)[0] for query in shown} == {
        "bobrai_task_duration_seconds",
        "bobrai_task_queue_wait_seconds",
        "bobrai_attempt_duration_seconds",
        "bobrai_http_request_duration_seconds",
    }
