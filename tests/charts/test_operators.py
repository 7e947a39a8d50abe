"""Operators get what the values say: servers as many, as large and in the same places as the chart's own would be."""

from typing import Any

import pytest
import yaml

from tests.charts.helm import CI, CRD_APIS, REPOSITORY, Body, Rendered, render
from tests.charts.quantities import quantity

MODES: Body = {"postgresql": {"mode": "operator"}, "rabbitmq": {"mode": "operator"}}
PLACED: Body = {
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "data", "operator": "Exists", "effect": "NoSchedule"}],
    "priorityClassName": "business-critical",
    "labels": {"team": "payments"},
    "annotations": {"example.com/owner": "payments"},
}
HOSTNAME = "kubernetes.io/hostname"


@pytest.fixture
def operated() -> Rendered:
    return render(files=[CI / "operators-values.yaml"], api_versions=CRD_APIS)


def test_operators_get_their_resources_and_the_chart_makes_no_server_of_its_own(operated: Rendered) -> None:
    assert [item.name for item in operated.all("Cluster")] == ["bobrai-postgresql"]
    assert [item.name for item in operated.all("Pooler")] == ["bobrai-pooler"]
    assert [item.name for item in operated.all("RabbitmqCluster")] == ["bobrai-rabbitmq"]
    assert operated.all("StatefulSet") == []


def test_the_operators_pooler_works_in_transaction_mode(operated: Rendered) -> None:
    pooler = operated.one("Pooler", "bobrai-pooler").spec
    assert pooler["pgbouncer"]["poolMode"] == "transaction"
    assert pooler["cluster"]["name"] == operated.all("Cluster")[0].name


def test_a_scheduled_backup_has_six_fields_for_the_operator() -> None:
    operator: dict[str, Any] = {"backup": {"enabled": True, "objectStore": "store"}}
    rendered = render({"postgresql": {"mode": "operator", "operator": operator}}, api_versions=CRD_APIS)
    (backup,) = rendered.all("ScheduledBackup")
    assert len(backup.spec["schedule"].split()) == 6


def test_the_operators_database_outlives_the_release(operated: Rendered) -> None:
    assert operated.one("Cluster", "bobrai-postgresql").annotations["helm.sh/resource-policy"] == "keep"


def pods(rendered: Rendered) -> dict[str, dict[str, str]]:
    """The labels that operators give the pods of each resource, by its kind."""
    labels = {}
    for kind in ("Cluster", "Pooler", "RabbitmqCluster"):
        for item in rendered.all(kind):
            labels[kind] = {
                "Cluster": {"cnpg.io/cluster": item.name, "cnpg.io/podRole": "instance"},
                "Pooler": {"cnpg.io/poolerName": item.name},
                "RabbitmqCluster": {"app.kubernetes.io/name": item.name, "app.kubernetes.io/component": "rabbitmq"},
            }[kind]
    return labels


def _specs(**values: Any) -> dict[str, Body]:
    """What each operator makes its pods of, by kind."""
    rendered = render({**MODES, **values}, api_versions=CRD_APIS)
    return {
        "Cluster": rendered.one("Cluster", "bobrai-postgresql").spec,
        "Pooler": rendered.one("Pooler", "bobrai-pooler").spec["template"]["spec"],
        "RabbitmqCluster": rendered.one("RabbitmqCluster", "bobrai-rabbitmq").spec["override"]["statefulSet"]["spec"][
            "template"
        ]["spec"],
    }


def test_operators_pods_run_where_the_values_say() -> None:
    specs = _specs(pod=PLACED, images={"pullSecrets": [{"name": "mirror"}]})
    for kind, spec in specs.items():
        place = spec["affinity"] if kind == "Cluster" else spec
        assert place["nodeSelector"] == PLACED["nodeSelector"], kind
        assert place["tolerations"] == PLACED["tolerations"], kind
        assert spec["priorityClassName"] == "business-critical", kind
        assert spec["imagePullSecrets"] == [{"name": "mirror"}], kind


def test_operators_pods_carry_the_wished_labels_and_annotations() -> None:
    rendered = render({**MODES, "pod": PLACED}, api_versions=CRD_APIS)
    marks = [
        rendered.one("Cluster", "bobrai-postgresql").spec["inheritedMetadata"],
        rendered.one("Pooler", "bobrai-pooler").spec["template"]["metadata"],
        rendered.one("RabbitmqCluster", "bobrai-rabbitmq").spec["override"]["statefulSet"]["spec"]["template"][
            "metadata"
        ],
    ]
    for mark in marks:
        assert mark["labels"].items() >= PLACED["labels"].items()
        assert mark["annotations"].items() >= PLACED["annotations"].items()


@pytest.mark.parametrize("kind", ["Pooler", "RabbitmqCluster"])
def test_operators_pods_keep_away_from_their_own_kind(operated: Rendered, kind: str) -> None:
    labels = pods(operated)[kind]
    (soft,) = _specs()[kind]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert soft["podAffinityTerm"]["labelSelector"]["matchLabels"] == labels
    hard = _specs(pod={"antiAffinity": "hard"})[kind]["affinity"]["podAntiAffinity"]
    (term,) = hard["requiredDuringSchedulingIgnoredDuringExecution"]
    successors = {"matchLabelKeys": ["pod-template-hash"]} if kind == "Pooler" else {}
    assert term == {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": labels}, **successors}


@pytest.mark.parametrize(("wish", "made"), [("soft", "preferred"), ("hard", "required")])
def test_databases_keep_away_from_each_other(wish: str, made: str) -> None:
    postgresql = {**MODES["postgresql"], "pod": {"antiAffinity": wish}}
    assert _specs(postgresql=postgresql)["Cluster"]["affinity"] == {
        "enablePodAntiAffinity": True, "podAntiAffinityType": made, "topologyKey": HOSTNAME,
    }  # fmt: skip


def test_an_affinity_of_ones_own_replaces_that_of_the_chart() -> None:
    nodes = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": []}]}}
    specs = _specs(pod={"affinity": {"nodeAffinity": nodes}})
    assert specs["Cluster"]["affinity"] == {"enablePodAntiAffinity": False, "nodeAffinity": nodes}
    assert specs["Pooler"]["affinity"] == specs["RabbitmqCluster"]["affinity"] == {"nodeAffinity": nodes}


def test_operators_pods_are_spread_over_zones(operated: Rendered) -> None:
    for kind, spec in _specs().items():
        (constraint,) = spec["topologySpreadConstraints"]
        assert constraint["topologyKey"] == "topology.kubernetes.io/zone", kind
        assert constraint["labelSelector"]["matchLabels"] == pods(operated)[kind], kind


def test_budgets_are_about_the_pods_that_operators_make_no_budget_for(operated: Rendered) -> None:
    for kind, name in (("Pooler", "bobrai-pooler"), ("RabbitmqCluster", "bobrai-rabbitmq")):
        budget = operated.one("PodDisruptionBudget", name).spec
        assert budget["selector"]["matchLabels"] == pods(operated)[kind]
        assert budget["maxUnavailable"] == 1
    assert operated.one("Cluster", "bobrai-postgresql").spec["enablePDB"] is True


@pytest.mark.parametrize("size", ["1Gi", "8Gi", "100Gi"])
def test_an_operators_broker_takes_messages_on_a_volume_of_any_size(size: str) -> None:
    """The operator's own limit of free disk, 2 GB, would be an alarm for ever on a smaller volume."""
    rabbitmq = {**MODES["rabbitmq"], "storage": {"size": size}}
    spec = render({**MODES, "rabbitmq": rabbitmq}, api_versions=CRD_APIS).one("RabbitmqCluster", "bobrai-rabbitmq").spec
    lines = dict(line.split(" = ") for line in spec["rabbitmq"]["additionalConfig"].splitlines())
    assert quantity(lines["disk_free_limit.absolute"].removesuffix("B")) <= quantity(size) / 4
    mark = quantity(lines["vm_memory_high_watermark.absolute"].removesuffix("B"))
    assert mark <= 0.6 * quantity(spec["resources"]["limits"]["memory"])


def test_variables_of_ones_own_reach_an_operators_broker() -> None:
    extra = [{"name": "TZ", "value": "UTC"}]
    (container,) = _specs(rabbitmq={**MODES["rabbitmq"], "extraEnv": extra})["RabbitmqCluster"]["containers"]
    assert container["env"] == extra


def test_an_operators_pooler_leaves_its_service_first_and_has_time_for_its_clients() -> None:
    spec = _specs()["Pooler"]
    (container,) = spec["containers"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= 5
    assert spec["terminationGracePeriodSeconds"] >= pause + 60


def test_no_two_brokers_of_production_share_a_machine_whoever_runs_them() -> None:
    files = [REPOSITORY / "k8s" / f"values-{name}.yaml" for name in ("production-ha", "operators")]
    assert yaml.safe_load(files[0].read_text())["rabbitmq"]["pod"]["antiAffinity"] == "hard"
    cluster = render(files=files, api_versions=CRD_APIS).one("RabbitmqCluster", "bobrai-rabbitmq").spec
    affinity = cluster["override"]["statefulSet"]["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
    assert "requiredDuringSchedulingIgnoredDuringExecution" in affinity
