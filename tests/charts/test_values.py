"""The contract of the values: the schema, the table and values.yaml agree, and Helm refuses what they do not know."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bobrai.domain.limits import QUEUE_PATTERN
from tests.charts import values_docs
from tests.charts.helm import CHART, CI, CRD_APIS, refusal, render
from tests.charts.values_docs import ValuesError, read, schema

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"worker": {}}, "worker"),
    ({"api": {"replica": 3}}, "replica"),
    ({"api": {"podDisruptionBudget": {"minAvailable": 1}}}, "minAvailable"),
    ({"workers": {"pools": {"media": {"concurency": 4}}}}, "concurency"),
    ({"images": {"api": {"tagg": "1"}}}, "tagg"),
    ({"images": {"api": {"tag": 1.5}}}, "tag"),
    ({"api": {"replicas": "three"}}, "replicas"),
    ({"dispatcher": {"replicas": -1}}, "replicas"),
    ({"api": {"drainSeconds": 100_000_000}}, "drainSeconds"),
    ({"dispatcher": {"retentionSeconds": 315_360_000}}, "retentionSeconds"),
    ({"api": {"service": {"port": 99999}}}, "port"),
    ({"api": {"preStopSeconds": 0}}, "preStopSeconds"),
    ({"api": {"pod": {"nodeselector": {}}}}, "nodeselector"),
    ({"workers": {"pools": ["default"]}}, "pools"),
    ({"workers": {"defaults": {"concurrency": 0}}}, "concurrency"),
    ({"autoscaling": {"provider": "prometheus"}}, "provider"),
    ({"migrations": {"mode": "hook"}}, "mode"),
    ({"postgresql": {"mode": "embedded"}}, "mode"),
    ({"workers": {"pools": {"default": {"queues": []}}}}, "queues"),
    ({"workers": {"pools": {"default": {"queues": ["Media"]}}}}, "'Media'"),
    ({"workers": {"pools": {"default": {"queues": ["a/b"]}}}}, "'a/b'"),
    ({"workers": {"pools": {"default": {"queues": ["a", "a"]}}}}, "queues"),
    ({"workers": {"pools": {"media": None}}}, "media"),
    ({"workers": {"defaults": {"drainSeconds": 0}}}, "drainSeconds"),
    ({"api": {"autoscaling": {"maxReplicas": 0}}}, "maxReplicas"),
    ({"config": {"bobrai.log": "x"}}, "bobrai.log"),
    ({"extraEnv": {"A": "1"}}, "extraEnv"),
    ({"api": {"resources": {"request": {"cpu": 1}}}}, "request"),
]


@pytest.mark.parametrize(("values", "named"), WRONG, ids=lambda value: str(value)[:60])
def test_helm_refuses_an_unknown_key_or_a_wrong_type_and_names_it(values: dict[str, Any], named: str) -> None:
    message = refusal(values)
    assert "specifications of the schema" in message
    assert named in message


def test_schema_and_table_are_made_from_the_values() -> None:
    for path, text in values_docs.made().items():
        assert path.read_text() == text, f"{path.name} is out of date: run 'make docs'"


def test_the_schema_knows_every_key_of_the_values_and_no_other() -> None:
    def keys(held: Any, rules: dict[str, Any], path: str) -> None:
        if isinstance(held, dict) and "properties" in rules and held:
            assert rules["additionalProperties"] is False, path
            assert set(held) == set(rules["properties"]) - {"global"} or path.endswith(".resources"), path
            for name, inner in held.items():
                keys(inner, rules["properties"][name], f"{path}.{name}")

    keys(yaml.safe_load(values_docs.VALUES.read_text()), schema(read(values_docs.VALUES.read_text())), "")


def test_the_values_in_use_name_no_value_that_templates_ignore() -> None:
    """Each leaf of values.yaml is read by some template, or it would promise something."""
    templates = "\n".join(file.read_text() for file in (CHART / "templates").rglob("*") if file.is_file())
    for value in values_docs._walk(read(values_docs.VALUES.read_text())):
        if value.description:
            assert value.name in templates, value.path


@pytest.mark.parametrize("pools", [{"Media": {}}, {"a" * 21: {}}, {"a_b": {}}, {"-a": {}}])
def test_a_pools_name_must_fit_the_name_of_a_deployment(pools: dict[str, Any]) -> None:
    assert "a pool's name" in refusal({"workers": {"pools": pools}})


@pytest.mark.parametrize("release", ["bobrai.prod", "1bobrai", "b" * 29 + ".x"])
def test_a_release_that_services_cannot_be_named_after_is_refused_with_what_to_set(release: str) -> None:
    assert "fullnameOverride" in refusal(release=release)
    assert render({"fullnameOverride": "tasks"}, release=release).one("Service", "tasks-api")


@pytest.mark.parametrize("name", ["Tasks", "a_b", "-a", "a-"])
def test_a_name_of_ones_own_must_fit_that_of_a_service(name: str) -> None:
    assert "fullnameOverride" in refusal({"fullnameOverride": name})


TOO_LONG: list[tuple[dict[str, Any], str, str]] = [
    ({"fullnameOverride": "a" * 31}, "bobrai", "it has 31 characters and may have 30"),
    ({}, "b" * 24, "it has 31 characters and may have 30"),
    ({}, "bobrai-" + "b" * 24, "it has 31 characters and may have 30"),
    (
        {"nameOverride": "a" * 31, "fullnameOverride": "tasks"},
        "bobrai",
        "nameOverride has 31 characters and may have 30",
    ),
]


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize(("values", "release", "said"), TOO_LONG, ids=lambda value: str(value)[:40])
def test_a_name_that_is_too_long_is_refused_and_never_cut(
    values: dict[str, Any], release: str, said: str, major: int
) -> None:
    assert said in refusal(values, release=release, major=major)


def test_a_queue_is_one_that_the_service_takes() -> None:
    workers = json.loads(values_docs.SCHEMA.read_text())["properties"]["workers"]["properties"]
    for pool in (workers["defaults"], workers["pools"]["additionalProperties"]):
        assert pool["properties"]["queues"]["items"]["pattern"] == QUEUE_PATTERN


def test_a_value_without_a_comment_is_refused() -> None:
    with pytest.raises(ValuesError, match=r"a\.b has no"):
        read("a:\n  b: 1\n")


def test_a_default_that_says_no_type_is_refused() -> None:
    with pytest.raises(ValuesError, match="no type follows"):
        schema(read("# -- What?\na: null\n"))


def test_types_in_parentheses_become_the_schema() -> None:
    words, numbers, same = "# -- (soft|hard) Words.", "# -- (list of integer|null) Numbers.", "# -- (like a) The same."
    properties = schema(read(f"{words}\na: soft\n{numbers}\nb: []\n{same}\nc: soft\n"))["properties"]
    assert properties["a"] == {"type": "string", "enum": ["soft", "hard"], "description": "Words."}
    assert properties["b"]["items"] == {"type": ["integer", "null"]}
    assert properties["c"]["enum"] == ["soft", "hard"]


SETTINGS: list[tuple[str, str, str]] = [
    ("bundled", "ConfigMap", "bobrai-postgresql"),
    ("operator", "Cluster", "bobrai-postgresql"),
]


@pytest.mark.parametrize(("mode", "kind", "name"), SETTINGS)
def test_a_setting_of_ones_own_wins_also_when_it_is_empty(mode: str, kind: str, name: str) -> None:
    wished = {"log_line_prefix": "", "pg_stat_statements.track": "all", "wal_compression": "off"}
    rendered = render({"postgresql": {"mode": mode, "parameters": wished}}, api_versions=CRD_APIS)
    made = rendered.one(kind, name)
    if mode == "operator":
        assert made.spec["postgresql"]["parameters"].items() >= wished.items()
    else:
        lines = made.body["data"]["postgresql.conf"].splitlines()
        assert {f"{key} = '{value}'" for key, value in wished.items()} <= set(lines)


PARAMETERS = {"whole": 1_000_000, "large": 31_536_000, "part": 0.00001, "text": "1e6", "right": True, "wrong": False}
AS_TEXT = {"whole": "1000000", "large": "31536000", "part": "0.00001", "text": "1e6", "right": "true", "wrong": "false"}
AS_DIGITS = {**AS_TEXT, "right": "1", "wrong": "0"}


@pytest.mark.parametrize("major", [3, 4])
def test_parameters_are_numbers_and_booleans_too_and_arrive_as_they_were_written(major: int) -> None:
    values: dict[str, Any] = {name: {"parameters": PARAMETERS} for name in ("postgresql", "pgbouncer", "rabbitmq")}
    bundled = render(values, major=major)

    def lines(config_map: str, file: str) -> set[str]:
        return set(bundled.one("ConfigMap", config_map).body["data"][file].splitlines())

    assert {f"{key} = '{value}'" for key, value in AS_TEXT.items()} <= lines("bobrai-postgresql", "postgresql.conf")
    assert {f"{key} = {value}" for key, value in AS_DIGITS.items()} <= lines("bobrai-pgbouncer", "pgbouncer.ini")
    assert {f"{key} = {value}" for key, value in AS_TEXT.items()} <= lines("bobrai-rabbitmq-config", "rabbitmq.conf")

    for name in ("postgresql", "rabbitmq"):
        values[name]["mode"] = "operator"
    operators = render(values, api_versions=CRD_APIS, major=major)
    assert operators.one("Cluster", "bobrai-postgresql").spec["postgresql"]["parameters"].items() >= AS_TEXT.items()
    assert operators.one("Pooler", "bobrai-pooler").spec["pgbouncer"]["parameters"].items() >= AS_DIGITS.items()
    configured = operators.one("RabbitmqCluster", "bobrai-rabbitmq").spec["rabbitmq"]["additionalConfig"].splitlines()
    assert {f"{key} = {value}" for key, value in AS_TEXT.items()} <= set(configured)


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"postgresql": {"mode": "external"}}, "postgresql.external.host"),
    ({"postgresql": {"mode": "external", "external": {"host": "db"}}}, "secrets.postgresql.existingSecret"),
    ({"rabbitmq": {"mode": "external"}}, "rabbitmq.external.hosts"),
    ({"rabbitmq": {"mode": "external", "external": {"hosts": ["a:5672"]}}}, "secrets.rabbitmq.existingSecret"),
    (
        {"workers": {"pools": {"default": {"autoscaling": {"minReplicas": 5, "maxReplicas": 2}}}}},
        "minReplicas is above maxReplicas",
    ),
    ({"workers": {"pools": {"default": {"queues": ["media."]}}}}, "an autoscaler cannot name the queue"),
    ({"handlers": {"inline": {"my tasks.py": "pass"}}}, "the name of a Python file"),
    ({"secrets": {"externalMetricsTls": {"existingSecret": "mine"}}}, "caBundle"),
    ({"api": {"autoscaling": {"minReplicas": 5, "maxReplicas": 2}}}, "minReplicas is above maxReplicas"),
    ({"ingress": {"enabled": True}}, "ingress.hosts"),
    ({"pgbouncer": {"replicas": None}}, "pgbouncer.replicas cannot be null"),
    ({"workers": {"defaults": {"queues": None}}}, "workers.defaults.queues cannot be null"),
    ({"nameOverride": "My Name", "fullnameOverride": "tasks"}, 'nameOverride="My Name" cannot be a label'),
    ({"api": {"rootPath": "/bobrai/"}}, "api.rootPath must begin with / and not end with it"),
    ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
    ({"postgresql": {"resources": {"limits": None}}}, "postgresql.resources.limits.memory is needed"),
    ({"rabbitmq": {"resources": None}}, "rabbitmq.resources.limits.memory is needed"),
    ({"config": {"BOBRAI_WORKER_DRAIN_SECONDS": 3600}}, "Set the value drainSeconds"),
    ({"api": {"extraEnv": [{"name": "BOBRAI_API_DRAIN_SECONDS", "value": "60"}]}}, "Set the value drainSeconds"),
    ({"workers": {"pools": {"a": {"config": {"BOBRAI_WORKER_DRAIN_SECONDS": 60}}}}}, "Set the value drainSeconds"),
]


@pytest.mark.parametrize(("values", "said"), CONTRADICTIONS, ids=lambda value: str(value)[:60])
def test_a_contradiction_fails_with_what_to_change(values: dict[str, Any], said: str) -> None:
    assert said in refusal(values, api_versions=CRD_APIS)


MISSING: list[tuple[dict[str, Any], str]] = [
    ({"autoscaling": {"provider": "keda"}}, "helm install keda"),
    ({"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}}, "kubectl apply --server-side"),
    ({"postgresql": {"mode": "operator"}}, "helm install cnpg"),
    ({"rabbitmq": {"mode": "operator"}}, "kubectl apply"),
    ({"monitoring": {"scrape": "operator"}}, "helm install"),
]


@pytest.mark.parametrize(("values", "command"), MISSING, ids=lambda value: str(value)[:60])
def test_a_missing_operator_is_named_with_the_command_that_installs_it(values: dict[str, Any], command: str) -> None:
    message = refusal(values)
    assert command in message
    assert render({**values, "validation": {"customResources": False}})


def test_the_oldest_kubernetes_is_said_and_held() -> None:
    assert "1.29" in refusal(kube_version="1.29")
    assert render(kube_version="1.30")


def test_every_shape_is_explained(shape: Path) -> None:
    assert shape.read_text().startswith("# ")


def test_the_readme_names_shapes_that_exist() -> None:
    pages = (CHART / "README.md").read_text() + (CHART / "UPGRADING.md").read_text()
    for word in pages.replace("`", " ").split():
        if word.startswith("ci/") and word.endswith("-values.yaml"):
            assert (CI / word.removeprefix("ci/")).exists(), word
