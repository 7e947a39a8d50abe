"""Everything that an object names exists: a first install finds each volume, port, account and pod it looks for."""

import re
from collections import Counter
from typing import Any

import pytest

from tests.charts.helm import CI, CLUSTER_SCOPED, CRD_APIS, Body, Manifest, Rendered, render

SELECTOR_KEYS = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}
LABELS = SELECTOR_KEYS | {"app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"}
WORKLOADS = ("Deployment", "StatefulSet")
SYSTEM_NAMESPACE = "kube-system"


def workloads(rendered: Rendered) -> list[Manifest]:
    """What keeps pods running."""
    return [manifest for manifest in rendered if manifest.kind in WORKLOADS]


def selected(rendered: Rendered, wanted: dict[str, str]) -> list[Manifest]:
    """The objects whose pods carry these labels."""
    return [pod for pod in rendered.pods() if wanted.items() <= pod.pod_metadata.get("labels", {}).items()]


def operated(rendered: Rendered) -> set[str]:
    """The resources whose pods an operator makes, with labels of its own."""
    return {item.name for item in rendered if item.kind in {"Cluster", "Pooler", "RabbitmqCluster"}}


def test_every_object_says_its_namespace(rendered: Rendered) -> None:
    for manifest in rendered:
        namespace = manifest.body["metadata"].get("namespace")
        if manifest.kind in CLUSTER_SCOPED:
            assert namespace is None, manifest
        elif namespace == SYSTEM_NAMESPACE:
            assert manifest.kind == "RoleBinding", manifest
        else:
            assert namespace == "bobrai", manifest


def test_no_object_is_there_twice(rendered: Rendered) -> None:
    keys = Counter(
        (item.api_version, item.kind, item.body["metadata"].get("namespace"), item.name) for item in rendered
    )
    assert [key for key, times in keys.items() if times > 1] == []


def test_every_object_is_labelled_for_people_and_tools(rendered: Rendered) -> None:
    for manifest in rendered:
        assert set(manifest.labels) >= LABELS, manifest
        assert manifest.labels["app.kubernetes.io/instance"] == "bobrai", manifest


def test_labels_of_ones_own_replace_what_describes_and_not_what_selects() -> None:
    """A key given twice is refused by some tools, and another value under a selector's key would lose the pods."""
    own = {"team": "payments", "app.kubernetes.io/part-of": "shop"}
    selecting = dict.fromkeys([*SELECTOR_KEYS, "app.kubernetes.io/managed-by"], "shop")
    before = render()
    after = render({"commonLabels": {**own, **selecting}, "pod": {"labels": {**own, "app.kubernetes.io/name": "shop"}}})
    for new, old in zip(after, before, strict=True):
        assert new.labels == {**old.labels, **own}, new
    for pod in workloads(after):
        assert pod.pod_metadata["labels"].items() >= {**own, **pod.spec["selector"]["matchLabels"]}.items(), pod


def test_selectors_hold_nothing_that_a_release_changes(rendered: Rendered) -> None:
    for manifest in workloads(rendered):
        assert set(manifest.spec["selector"]["matchLabels"]) == SELECTOR_KEYS, manifest
        for claim in manifest.spec.get("volumeClaimTemplates") or []:
            assert set(claim["metadata"].get("labels") or {}) <= SELECTOR_KEYS, manifest


def test_each_pod_belongs_to_one_workload(rendered: Rendered) -> None:
    for manifest in workloads(rendered):
        found = selected(rendered, manifest.spec["selector"]["matchLabels"])
        assert [str(pod) for pod in found] == [str(manifest)]


def test_every_service_finds_its_pods_and_their_ports(rendered: Rendered) -> None:
    for service in rendered.all("Service"):
        pods = selected(rendered, service.spec["selector"])
        assert len(pods) == 1, (service, pods)
        names = {port["name"] for container in pods[0].containers for port in container.get("ports") or []}
        for port in service.spec["ports"]:
            assert port.get("targetPort", port["port"]) in names, (service, port, names)


def test_every_budget_and_policy_is_about_the_pods_of_one_component(rendered: Rendered) -> None:
    for manifest in rendered:
        key = {"PodDisruptionBudget": "selector", "NetworkPolicy": "podSelector"}.get(manifest.kind)
        if key:
            pods = selected(rendered, manifest.spec[key]["matchLabels"])
            if not pods and manifest.name in operated(rendered):
                continue
            assert len({pod.labels["app.kubernetes.io/component"] for pod in pods}) == 1, manifest


def test_network_policies_open_ports_that_their_pods_have(rendered: Rendered) -> None:
    for policy in rendered.all("NetworkPolicy"):
        pods = selected(rendered, policy.spec["podSelector"]["matchLabels"])
        ports = [port for pod in pods for container in pod.containers for port in container.get("ports") or []]
        known = {port["containerPort"] for port in ports} | {port["name"] for port in ports}
        for rule in policy.spec.get("ingress") or []:
            assert {port["port"] for port in rule.get("ports") or []} <= known, policy


def test_every_mount_has_its_volume_and_every_volume_a_mount(rendered: Rendered) -> None:
    for pod in rendered.pods():
        volumes = {volume["name"] for volume in pod.pod.get("volumes") or []}
        volumes |= {claim["metadata"]["name"] for claim in pod.spec.get("volumeClaimTemplates") or []}
        mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts") or []}
        assert mounted == volumes, pod
        for container in pod.containers:
            paths = Counter(mount["mountPath"] for mount in container.get("volumeMounts") or [])
            assert max(paths.values(), default=0) <= 1, (pod, paths)


def test_probes_use_ports_that_the_container_names(rendered: Rendered) -> None:
    for pod in rendered.pods():
        for container in pod.containers:
            names = {port["name"] for port in container.get("ports") or []}
            assert all(len(name) <= 15 for name in names), pod
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                for action in ("httpGet", "tcpSocket"):
                    wanted = container.get(probe, {}).get(action)
                    assert wanted is None or wanted["port"] in names, (pod, probe, wanted)


def test_service_accounts_that_pods_name_exist(rendered: Rendered) -> None:
    made = {account.name for account in rendered.all("ServiceAccount")} | {"default"}
    named = {pod.pod.get("serviceAccountName", "default") for pod in rendered.pods()}
    assert named <= made
    assert made - {"default"} <= named, "an account that nothing uses"


def _sources(pod: Manifest) -> list[tuple[str, str, str | None]]:
    """Each (kind, name, key) of a ConfigMap or Secret that a pod needs."""
    found: list[tuple[str, str, str | None]] = []
    for container in pod.containers:
        for entry in container.get("env") or []:
            for kind, reference in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
                source = (entry.get("valueFrom") or {}).get(reference)
                if source and not source.get("optional"):
                    found.append((kind, source["name"], source["key"]))
    for volume in pod.pod.get("volumes") or []:
        for part in [volume, *volume.get("projected", {}).get("sources", [])]:
            found += _volume_sources(part)
    return found


def _volume_sources(part: Body) -> list[tuple[str, str, str | None]]:
    for kind, field, key in (("Secret", "secret", "secretName"), ("ConfigMap", "configMap", "name")):
        if source := part.get(field):
            name = source.get(key) or source["name"]
            items = [item["key"] for item in source.get("items") or []]
            return [(kind, name, item) for item in items] or [(kind, name, None)]
    return []


def _made(rendered: Rendered) -> dict[tuple[str, str], set[str]]:
    return {
        (item.kind, item.name): set(item.body.get("data") or {}) | set(item.body.get("stringData") or {})
        for item in rendered
        if item.kind in {"Secret", "ConfigMap"}
    }


NOT_MADE = {
    "tls": {
        *(f"tasks-{name}" for name in ("api-tls", "clients", "machine", "database", "broker", "monitor")),
        *(f"tasks-{server}-{kind}" for server in ("database", "broker") for kind in ("ca", "client")),
    },
    "external": {"tasks-database", "tasks-broker"},
    "existing-secrets": {"bobrai-database", "bobrai-broker", "bobrai-keys", "bobrai-metrics-tls"},
    "monitoring-external": {"our-database", "our-broker", "our-database-monitor"},
    "several-pools": {"media"},
    "access": {"bobrai-ci", "bobrai-grafana"},
}
"""Secrets that a user makes."""


def test_every_secret_and_config_that_a_pod_reads_is_made_or_known_to_exist(
    rendered: Rendered, request: pytest.FixtureRequest
) -> None:
    shape = request.node.callspec.id
    operators = {f"{item.name}-app" for item in rendered.all("Cluster")}
    operators |= {f"{item.name}-default-user" for item in rendered.all("RabbitmqCluster")}
    made, foreign = _made(rendered), NOT_MADE.get(shape, set()) | operators
    for pod in rendered.pods():
        for kind, name, key in _sources(pod):
            if name in foreign:
                continue
            assert (kind, name) in made, (pod, kind, name)
            assert key is None or key in made[kind, name], (pod, name, key)


def test_every_secret_and_config_is_read_by_somebody(rendered: Rendered) -> None:
    read = {(kind, name) for pod in rendered.pods() for kind, name, _ in _sources(pod)}
    read |= {
        ("Secret", reference["name"])
        for authentication in rendered.all("TriggerAuthentication")
        for reference in authentication.spec["secretTargetRef"]
    }
    # Grafana's sidecar reads them, by their label
    read |= {("ConfigMap", item.name) for item in rendered.all("ConfigMap") if "grafana_dashboard" in item.labels}
    text = "\n".join(str(item.spec) for item in rendered if item.kind in {"Cluster", "Pooler", "RabbitmqCluster"})
    assert [key for key in _made(rendered) if key not in read and key[1] not in text] == []


MERGE_KEYS = {
    "env": ("name",),
    "ports": ("containerPort", "port", "protocol"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
    "containers": ("name",),
    "initContainers": ("name",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
"""What server-side apply, the default of Helm 4, tells the entries of a list by; it refuses two that are the same."""


def _doubles(body: Any, path: str) -> list[str]:
    if isinstance(body, dict):
        return [double for key, inner in body.items() for double in _doubles(inner, f"{path}.{key}")]
    if not isinstance(body, list):
        return []
    keys = MERGE_KEYS.get(path.rpartition(".")[2], ())
    seen = Counter(str([entry.get(key) for key in keys]) for entry in body) if keys else Counter[str]()
    inside = [double for number, entry in enumerate(body) for double in _doubles(entry, f"{path}.{number}")]
    return [f"{path}: {key}" for key, times in seen.items() if times > 1] + inside


def test_no_entry_of_a_list_is_given_twice(rendered: Rendered) -> None:
    assert [double for item in rendered for double in _doubles(item.spec, f"{item}.spec")] == []


def test_scalers_aim_at_a_deployment_that_exists(rendered: Rendered) -> None:
    for manifest in [*rendered.all("HorizontalPodAutoscaler"), *rendered.all("ScaledObject")]:
        rendered.one("Deployment", manifest.spec["scaleTargetRef"]["name"])


def test_every_stateful_set_names_a_service_of_its_own_pods(rendered: Rendered) -> None:
    for manifest in rendered.all("StatefulSet"):
        service = rendered.one("Service", manifest.spec["serviceName"])
        assert selected(rendered, service.spec["selector"]) == [manifest], service


LONGEST_RELEASE = "a" * 53
LONGEST_NAME = "a" * 30


@pytest.mark.parametrize(
    ("release", "name"), [("bobrai", ""), ("tasks", ""), (LONGEST_NAME, LONGEST_NAME), (LONGEST_RELEASE, LONGEST_NAME)]
)
@pytest.mark.parametrize("shape_name", ["default", "operators", "keda", "several-pools"])
def test_names_fit_kubernetes_whatever_the_release_is_called(release: str, name: str, shape_name: str) -> None:
    values = {"fullnameOverride": name, "workers": {"pools": {"a-pool-of-20-letters": {}}}}
    values |= {"postgresql": {"replica": {"enabled": True}}}
    rendered = render(values, files=[CI / f"{shape_name}-values.yaml"], release=release, api_versions=CRD_APIS)
    for manifest in rendered:
        limit = 52 if manifest.kind in {"StatefulSet", "CronJob", "Cluster", "RabbitmqCluster"} else 63
        if manifest.kind == "Deployment":
            limit = 58  # beyond, Kubernetes cuts the names of its pods before it adds what it draws
        if manifest.kind in {"APIService", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}:
            limit = 253
        assert len(manifest.name) <= limit, (manifest, len(manifest.name))
        assert re.fullmatch(r"[a-z]([a-z0-9.-]*[a-z0-9])?", manifest.name), manifest
        for value in manifest.labels.values():
            assert re.fullmatch(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?", value), (manifest, value)


def _identities(rendered: Rendered) -> set[tuple[str, str, str]]:
    return {(item.kind, item.body["metadata"].get("namespace", ""), item.name) for item in rendered}


def test_two_releases_share_a_namespace_with_nothing_in_common_but_the_metrics_api() -> None:
    shared = _identities(render(release="bobrai")) & _identities(render(release="tasks"))
    assert {name for _, _, name in shared} <= {"v1beta1.external.metrics.k8s.io"}


def test_equal_releases_in_two_namespaces_share_nothing_but_the_metrics_api() -> None:
    shared = _identities(render(namespace="one")) & _identities(render(namespace="two"))
    assert {name for _, _, name in shared} <= {"v1beta1.external.metrics.k8s.io"}


def test_helm_test_ends_by_itself_before_helm_gives_up_on_it() -> None:
    """The pod says what is wrong; Helm would only say that its five minutes are over."""
    args = render().one("Pod", "bobrai-smoke").container("smoke")["args"]
    assert 120 <= int(args[args.index("--timeout") + 1]) < 300
