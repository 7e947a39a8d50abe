"""Every pod passes the restricted Pod Security profile and more: workloads, Jobs, init containers, the test."""

import re

from tests.charts.helm import Body, Manifest, Rendered
from tests.charts.quantities import quantity

RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
TOKEN_USERS = {"external-metrics"}
"""The components that speak to the Kubernetes API, and so may hold a token."""


def _bad_containers(rendered: Rendered, key: str, wanted: object) -> list[str]:
    return [
        f"{pod} {container['name']}"
        for pod in rendered.pods()
        for container in pod.containers
        if container.get("securityContext", {}).get(key) != wanted
    ]


def test_pods_run_as_a_numbered_user_who_is_not_root(rendered: Rendered) -> None:
    for pod in rendered.pods():
        context = pod.pod["securityContext"]
        assert context["runAsNonRoot"] is True, pod
        assert context["runAsUser"] > 0, pod
        for container in pod.containers:
            assert container["securityContext"].get("runAsUser", 1) > 0, pod
            assert container["securityContext"].get("runAsNonRoot") is not False, pod


def test_pods_have_the_default_seccomp_profile(rendered: Rendered) -> None:
    for pod in rendered.pods():
        assert pod.pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, pod
        for container in pod.containers:
            own = container["securityContext"].get("seccompProfile", {"type": "RuntimeDefault"})
            assert own == {"type": "RuntimeDefault"}, pod


def test_no_container_may_gain_privileges(rendered: Rendered) -> None:
    assert _bad_containers(rendered, "allowPrivilegeEscalation", wanted=False) == []
    assert _bad_containers(rendered, "privileged", wanted=None) == []


def test_every_container_drops_all_capabilities_and_adds_none(rendered: Rendered) -> None:
    assert _bad_containers(rendered, "capabilities", {"drop": ["ALL"]}) == []


def test_every_root_filesystem_is_read_only(rendered: Rendered) -> None:
    assert _bad_containers(rendered, "readOnlyRootFilesystem", wanted=True) == []


def test_no_pod_shares_anything_with_its_node(rendered: Rendered) -> None:
    for pod in rendered.pods():
        spec = pod.pod or {}
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace"} & set(spec), pod
        for volume in spec.get("volumes") or []:
            assert set(volume) - {"name"} <= RESTRICTED_VOLUMES, (pod, volume)
        for container in pod.containers:
            assert not any("hostPort" in port for port in container.get("ports") or []), pod


def test_every_scratch_volume_has_a_limit(rendered: Rendered) -> None:
    unlimited = [
        f"{pod} {volume['name']}"
        for pod in rendered.pods()
        for volume in pod.pod.get("volumes") or []
        if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit")
    ]
    assert unlimited == []


def test_a_token_is_mounted_only_where_the_kubernetes_api_is_spoken_to(rendered: Rendered) -> None:
    holders = {
        pod.labels["app.kubernetes.io/component"]
        for pod in rendered.pods()
        if pod.pod.get("automountServiceAccountToken") is not False
    }
    assert holders <= TOKEN_USERS
    for account in rendered.all("ServiceAccount"):
        assert account.body["automountServiceAccountToken"] is False, account


def test_rights_go_only_to_accounts_whose_token_is_mounted(rendered: Rendered) -> None:
    bound = {
        subject["name"]
        for kind in ("RoleBinding", "ClusterRoleBinding")
        for binding in rendered.all(kind)
        for subject in binding.body["subjects"]
    }
    mounting = {
        pod.pod["serviceAccountName"]
        for pod in rendered.pods()
        if pod.pod.get("automountServiceAccountToken") is not False
    }
    assert bound == mounting


def test_no_right_is_a_wildcard(rendered: Rendered) -> None:
    for kind in ("Role", "ClusterRole"):
        for role in rendered.all(kind):
            for rule in role.body["rules"]:
                assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]], role
                assert "secrets" not in rule["resources"], role


def test_kubernetes_injects_no_variables_for_services(rendered: Rendered) -> None:
    assert [str(pod) for pod in rendered.pods() if pod.pod.get("enableServiceLinks") is not False] == []


def test_every_image_is_exact_and_none_is_bitnamis(rendered: Rendered) -> None:
    for pod in rendered.pods():
        for container in pod.containers:
            image = container["image"]
            exact = re.fullmatch(r"[a-z0-9./_-]+(:\d+/[a-z0-9./_-]+)?:(?P<tag>[\w.-]+)(@sha256:[0-9a-f]{64})?", image)
            assert exact is not None, (pod, image)
            assert re.match(r"v?\d", exact["tag"]), (pod, image)
            assert "bitnami" not in image, (pod, image)


def test_every_container_says_what_it_needs(rendered: Rendered) -> None:
    for pod in rendered.pods():
        for container in pod.containers:
            _check_resources(pod, container)


def _check_resources(pod: Manifest, container: Body) -> None:
    where = f"{pod} {container['name']}"
    resources = container["resources"]
    assert quantity(resources["requests"]["cpu"]) > 0, where
    assert 0 < quantity(resources["requests"]["memory"]) <= quantity(resources["limits"]["memory"]), where
    assert "cpu" not in resources["limits"], f"{where}: a CPU limit slows a process down while cores stand idle"
