"""Workers follow the backlog: the autoscaler of each pool aims at what one pod of the pool can run."""

import base64
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.charts.helm import CI, CRD_APIS, Rendered, render
from tests.charts.test_life import environment

POOLS: dict[str, Any] = {
    "workers": {"pools": {"media": {"queues": ["media", "thumbnails"], "concurrency": 7}, "still": {"replicas": 3}}}
}
STILL = {"workers": {"pools": {"still": {"autoscaling": {"enabled": False}}}}}


def _with(provider: str, **more: Any) -> Rendered:
    return render({"autoscaling": {"provider": provider}, **more}, api_versions=CRD_APIS)


def test_each_pool_aims_at_its_concurrency_over_its_queues() -> None:
    rendered = _with("builtin", **POOLS)
    for pool in ("default", "media", "still"):
        worker = environment(rendered.one("Deployment", f"bobrai-worker-{pool}").container("worker"))
        (metric,) = rendered.one("HorizontalPodAutoscaler", f"bobrai-worker-{pool}").spec["metrics"]
        assert metric["type"] == "External"
        assert metric["external"]["metric"]["name"] == "bobrai_backlog"
        assert metric["external"]["target"] == {
            "type": "AverageValue",
            "averageValue": worker["BOBRAI_WORKER_CONCURRENCY"],
        }
        (selector,) = metric["external"]["metric"]["selector"]["matchExpressions"]
        assert selector["key"] == "queue"
        assert selector["operator"] == "In"
        assert ",".join(selector["values"]) == worker["BOBRAI_WORKER_QUEUES"]


def test_keda_reads_the_same_number_and_falls_back_when_it_cannot() -> None:
    rendered = _with("keda", **POOLS)
    for pool in ("default", "media", "still"):
        worker = environment(rendered.one("Deployment", f"bobrai-worker-{pool}").container("worker"))
        spec = rendered.one("ScaledObject", f"bobrai-worker-{pool}").spec
        assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
        assert spec["fallback"]["replicas"] >= 1
        (trigger,) = spec["triggers"]
        assert trigger["metadata"]["targetValue"] == worker["BOBRAI_WORKER_CONCURRENCY"]
        assert trigger["metadata"]["url"].endswith(f"?queues={worker['BOBRAI_WORKER_QUEUES']}")
        rendered.one("TriggerAuthentication", trigger["authenticationRef"]["name"])


def test_keda_shows_a_key_that_the_api_makes_and_that_may_read_queues_alone() -> None:
    rendered = _with("keda")
    (reference,) = rendered.all("TriggerAuthentication")[0].spec["secretTargetRef"]
    api = rendered.one("Deployment", "bobrai-api")
    (entry,) = [entry for entry in api.container("api")["env"] if entry["name"] == "BOBRAI_AUTH_KEYS"]
    (key,) = [key for key in json.loads(entry["value"]) if key["name"] == "chart scaling"]
    assert key == {"name": "chart scaling", "file": "/etc/bobrai/keys/chart/scaling", "scopes": ["queues:read"]}
    (volume,) = [each for each in api.pod["volumes"] if each["name"] == "keys"]
    secret = volume["projected"]["sources"][0]["secret"]
    assert secret["name"] == reference["name"]
    assert {"key": reference["key"], "path": "chart/scaling"} in secret["items"]


def test_the_two_providers_never_own_one_autoscaler() -> None:
    builtin = {item.name for item in _with("builtin").all("HorizontalPodAutoscaler")}
    advanced = _with("keda").one("ScaledObject", "bobrai-worker-default").spec["advanced"]
    assert advanced["horizontalPodAutoscalerConfig"]["name"] not in builtin


@pytest.mark.parametrize("provider", ["builtin", "keda"])
def test_a_pool_can_opt_out(provider: str) -> None:
    rendered = _with(provider, **STILL)
    scalers = [*rendered.all("HorizontalPodAutoscaler"), *rendered.all("ScaledObject")]
    assert "bobrai-worker-still" not in {scaler.spec["scaleTargetRef"]["name"] for scaler in scalers}
    assert "bobrai-worker-default" in {scaler.spec["scaleTargetRef"]["name"] for scaler in scalers}


def test_a_pools_own_values_win_even_where_they_are_false_zero_or_empty() -> None:
    own = {
        "replicas": 0,
        "autoscaling": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
    }
    defaults = {"replicas": 4, "maxTasks": 5}
    rendered = render({"workers": {"pools": {"still": {**own, "maxTasks": 0}}, "defaults": defaults}})
    deployment = rendered.one("Deployment", "bobrai-worker-still")
    assert deployment.spec["replicas"] == 0
    assert environment(deployment.container("worker"))["BOBRAI_WORKER_MAX_TASKS"] == "0"
    assert rendered.find("HorizontalPodAutoscaler", "bobrai-worker-still") is None
    assert rendered.find("PodDisruptionBudget", "bobrai-worker-still") is None


@pytest.mark.parametrize("given", [{"reference": "bobrai-worker:dev"}, {"digest": "sha256:" + "0" * 64}], ids=str)
def test_an_image_of_ones_own_is_not_mixed_with_that_of_the_other_pools(given: dict[str, str]) -> None:
    own = {"workers": {"pools": {"media": {"image": {"repository": "example.com/media", "tag": "7"}}}}}
    rendered = render({"images": {"worker": given}, **own})
    assert rendered.one("Deployment", "bobrai-worker-media").container("worker")["image"] == "example.com/media:7"
    image = rendered.one("Deployment", "bobrai-worker-default").container("worker")["image"]
    assert image.endswith(*given.values())


def test_the_default_pool_can_be_taken_away() -> None:
    rendered = render({"workers": {"pools": {"default": None, "media": {"queues": ["media"]}}}})
    assert [item.name for item in rendered.all("Deployment") if "worker" in item.name] == ["bobrai-worker-media"]


def test_pods_may_be_patched_only_where_that_is_wished() -> None:
    assert render().all("Role") == []
    (role,) = render({"autoscaling": {"podDeletionCost": True}}).all("Role")
    assert {verb for rule in role.body["rules"] for verb in rule["verbs"]} <= {"patch", "list", "get"}
    assert {resource for rule in role.body["rules"] for resource in rule["resources"]} == {"pods"}


def test_no_provider_means_no_trace_of_one() -> None:
    rendered = _with("none")
    assert [item.name for item in rendered.all("HorizontalPodAutoscaler")] == ["bobrai-api"]
    assert not [
        item for item in rendered if "external-metrics" in item.name or item.kind in {"APIService", "ScaledObject"}
    ]


def test_only_the_builtin_provider_claims_the_metrics_api() -> None:
    assert [item.name for item in _with("builtin").all("APIService")] == ["v1beta1.external.metrics.k8s.io"]
    assert _with("keda").all("APIService") == []


def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(pem))


@pytest.mark.parametrize(("release", "namespace"), [("bobrai", "bobrai"), ("bobrai" * 5, "n" * 63)])
def test_the_api_server_trusts_the_certificate_of_the_metrics_server(release: str, namespace: str) -> None:
    rendered = render(release=release, namespace=namespace)
    service = rendered.all("APIService")[0].spec
    assert "insecureSkipTLSVerify" not in service
    (secret,) = [item for item in rendered.all("Secret") if item.body["type"] == "kubernetes.io/tls"]
    assert secret.body["data"]["ca.crt"] == service["caBundle"]
    authority = _certificate(service["caBundle"])
    server = _certificate(secret.body["data"]["tls.crt"])
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    host = f"{service['service']['name']}.{service['service']['namespace']}.svc"
    assert host in names.get_values_for_type(x509.DNSName)
    usage = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.SERVER_AUTH in usage


def test_a_certificate_of_ones_own_is_not_made_again() -> None:
    rendered = render(files=[CI / "existing-secrets-values.yaml"])
    assert [item for item in rendered.all("Secret") if item.body["type"] == "kubernetes.io/tls"] == []
