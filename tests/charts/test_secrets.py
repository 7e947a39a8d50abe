"""Credentials: an existing Secret before a value before a generated one, generated once, and never anywhere else."""

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from tests.charts.cluster import cluster
from tests.charts.helm import CI, CRD_APIS, Body, HelmError, Rendered, render

GIVEN: dict[str, Any] = {
    "secrets": {
        "postgresql": {"password": "given-1", "postgresPassword": "given-2", "replicationPassword": "given-3"},
        "rabbitmq": {"password": "given-4", "erlangCookie": "given-5"},
        "apiKeys": {name: f"bobrai_{name}_given-{'6' * 40}" for name in ("admin", "smoke", "scaling")},
    }
}
GENERATED = {
    "bobrai-postgresql": {"password", "postgres-password", "replication-password", "stats-password"},
    "bobrai-rabbitmq": {"password", "erlang-cookie"},
    "bobrai-api-keys": {"admin", "smoke", "scaling"},
}


def _secrets(rendered: Rendered) -> dict[str, dict[str, str]]:
    return {
        item.name: {key: base64.b64decode(value).decode() for key, value in item.body["data"].items()}
        for item in rendered.all("Secret")
    }


@pytest.mark.parametrize("provider", ["builtin", "keda"])
@pytest.mark.parametrize("mode", ["bundled", "operator"])
def test_no_credential_is_anywhere_but_in_a_secret(provider: str, mode: str) -> None:
    values = {**GIVEN, "autoscaling": {"provider": provider}, "postgresql": {"mode": mode}, "rabbitmq": {"mode": mode}}
    for manifest in render(values, api_versions=CRD_APIS):
        if manifest.kind != "Secret":
            text = str(manifest.body)
            assert "given-" not in text, manifest
            assert base64.b64encode(b"given-").decode()[:7] not in text, manifest


def test_given_values_are_used() -> None:
    found = _secrets(render({**GIVEN, "autoscaling": {"provider": "keda"}}, api_versions=CRD_APIS))
    assert found["bobrai-postgresql"]["password"] == "given-1"
    assert found["bobrai-postgresql"]["postgres-password"] == "given-2"
    assert found["bobrai-postgresql"]["replication-password"] == "given-3"
    assert found["bobrai-rabbitmq"]["password"] == "given-4"
    assert found["bobrai-rabbitmq"]["erlang-cookie"] == "given-5"
    assert found["bobrai-api-keys"] == GIVEN["secrets"]["apiKeys"]


def test_generated_ones_are_long_different_and_free_of_special_characters() -> None:
    found = _secrets(render({"autoscaling": {"provider": "keda"}}, api_versions=CRD_APIS))
    values = [found[name][key] for name, keys in GENERATED.items() for key in keys]
    assert len(set(values)) == len(values)
    assert all(re.fullmatch(r"(bobrai_[a-z0-9]{12}_)?[A-Za-z0-9]{24,}", value) for value in values)


def test_existing_secrets_win_and_nothing_is_made() -> None:
    assert render(files=[CI / "existing-secrets-values.yaml"]).all("Secret") == []


def test_secrets_outlive_the_release_as_the_volumes_do(rendered: Rendered) -> None:
    for secret in rendered.all("Secret"):
        assert secret.annotations["helm.sh/resource-policy"] == "keep", secret


def test_configuration_holds_no_secret_data(rendered: Rendered) -> None:
    for manifest in rendered.all("ConfigMap"):
        assert not re.search(r"(?i)\bpassword\s*[:=]\s*['\"]?[A-Za-z0-9]{8,}", str(manifest.body["data"])), manifest


@pytest.mark.parametrize("provider", ["builtin", "keda"])
def test_an_upgrade_keeps_what_was_generated_and_restarts_nothing(tmp_path: Path, provider: str) -> None:
    values = {"autoscaling": {"provider": provider}}
    installed = render(values, api_versions=CRD_APIS)
    with cluster(tmp_path, [secret.body for secret in installed.all("Secret")]) as kubeconfig:
        upgraded = render(values, api_versions=CRD_APIS, upgrade=True, cluster=kubeconfig)
    assert {str(item): item.body for item in upgraded} == {str(item): item.body for item in installed}


def test_a_key_that_an_older_release_did_not_make_is_added_and_the_others_stay(tmp_path: Path) -> None:
    installed = render()
    secret = installed.one("Secret", "bobrai-postgresql").body
    older = {**secret, "data": {key: value for key, value in secret["data"].items() if key != "stats-password"}}
    with cluster(tmp_path, [older]) as kubeconfig:
        upgraded = render(upgrade=True, cluster=kubeconfig).one("Secret", "bobrai-postgresql").body
    assert {**upgraded["data"], "stats-password": ""} == {**older["data"], "stats-password": ""}
    assert upgraded["data"]["stats-password"]


def _provider(name: str, namespace: str) -> Body:
    service = {"name": name, "namespace": namespace, "port": 443}
    metadata = {"name": "v1beta1.external.metrics.k8s.io"}
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": metadata,
        "spec": {"service": service},
    }


def test_another_provider_of_external_metrics_is_not_pushed_aside(tmp_path: Path) -> None:
    with cluster(tmp_path, [_provider("keda-operator-metrics-apiserver", "keda")]) as kubeconfig:
        with pytest.raises(HelmError, match=r"keda/keda-operator-metrics-apiserver") as refused:
            render(cluster=kubeconfig)
        assert "autoscaling.provider=keda" in str(refused.value)
        assert "kubectl delete apiservice v1beta1.external.metrics.k8s.io" in str(refused.value)
        assert render({"autoscaling": {"provider": "none"}}, cluster=kubeconfig)


def test_ones_own_metrics_api_is_no_obstacle_to_an_upgrade(tmp_path: Path) -> None:
    with cluster(tmp_path, [_provider("bobrai-external-metrics", "bobrai")]) as kubeconfig:
        assert render(cluster=kubeconfig, upgrade=True)
