"""k8s/ and skaffold.yaml: each file is valid for the tool that reads it, and what it names exists."""

import copy
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import pytest
import yaml

from tests.charts.helm import CHART, CRD_APIS, Manifest, Rendered, render
from tests.charts.schemas import compile_notation, faults

REPOSITORY = CHART.parents[1]
K8S = REPOSITORY / "k8s"
TOOLS = Path(__file__).parent / "schemas" / "tools"
SKAFFOLD = yaml.safe_load((REPOSITORY / "skaffold.yaml").read_text())
PROFILES = {profile["name"]: profile for profile in SKAFFOLD["profiles"]}
BUNDLE = {"secrets": {"externalMetricsTls": {"caBundle": "Y2hhbmdlIG1l"}}}
BUILT = re.compile(r"\{\{\.IMAGE_FULLY_QUALIFIED_(\w+)\}\}")
# The values files alone, and together as the pages say.
COMBINATIONS = [
    ["dev"],
    ["production-ha"],
    ["gitops"],
    ["keda"],
    ["operators"],
    ["dev", "operators"],
    ["dev", "keda"],
    ["production-ha", "operators"],
    ["production-ha", "keda"],
    ["production-ha", "gitops"],
    ["production-ha", "operators", "gitops"],
]


def tool_faults(tool: str, held: object) -> list[str]:
    """What the tool would refuse in a file of its own."""
    schema = compile_notation(yaml.safe_load((TOOLS / f"{tool}.yaml").read_text()))
    validator = jsonschema_rs.Draft202012Validator(schema)
    return [f"{'.'.join(map(str, each.instance_path))}: {each.message}" for each in validator.iter_errors(held)]


def values_files(names: list[str]) -> list[Path]:
    return [K8S / f"values-{name}.yaml" for name in names]


def patched(*profiles: str) -> dict[str, Any]:
    """skaffold.yaml with the patches of these profiles; only what they use of JSON patches."""
    config = copy.deepcopy(SKAFFOLD)
    for name in profiles:
        for patch in PROFILES[name].get("patches", []):
            *parents, last = patch["path"].removeprefix("/").split("/")
            held: Any = config
            for key in parents:
                held = held[int(key)] if isinstance(held, list) else held[key]
            assert patch["op"] in {"add", "replace"}
            assert patch["op"] == "add" or last in held, f"{name}: nothing to replace at {patch['path']}"
            held[last] = patch["value"]
    return config


def without_patch_values(config: dict[str, Any]) -> dict[str, Any]:
    config = copy.deepcopy(config)
    for profile in config["profiles"]:
        for patch in profile.get("patches", []):
            del patch["value"]
    return config


def deployed(config: dict[str, Any]) -> Rendered:
    """What Skaffold's Helm would install."""
    release = config["deploy"]["helm"]["releases"][0]
    assert REPOSITORY / release["chartPath"] == CHART
    values: dict[str, Any] = {}
    settings = {**release.get("setValues", {}), **release["setValueTemplates"]}
    for path, value in settings.items():
        held = values
        *parents, last = path.split(".")
        for key in parents:
            held = held.setdefault(key, {})
        held[last] = BUILT.sub(r"\1:built", value) if isinstance(value, str) else value
    files = [REPOSITORY / file for file in release["valuesFiles"]]
    return render(values, files=files, api_versions=CRD_APIS, release=release["name"], namespace=release["namespace"])


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
@pytest.mark.parametrize("kubernetes", ["1.30", "1.37"])
def test_every_combination_of_values_renders_valid_objects(names: list[str], kubernetes: str) -> None:
    rendered = render(BUNDLE if "gitops" in names else {}, files=values_files(names), api_versions=CRD_APIS)
    assert [fault for manifest in rendered for fault in faults(manifest, kubernetes)] == []


def test_gitops_values_generate_nothing() -> None:
    rendered = render(BUNDLE, files=values_files(["production-ha", "gitops"]))
    # what is left is configuration, which the render of twice the same above holds to be the same
    assert {each.name for each in rendered.all("Secret")} & {"bobrai-postgresql", "bobrai-rabbitmq"} == set()


def test_development_runs_one_of_everything() -> None:
    rendered = render(files=values_files(["dev"]))
    workloads = [*rendered.all("Deployment"), *rendered.all("StatefulSet")]
    counts = {str(each): each.spec.get("replicas", 1) for each in workloads}
    assert len(counts) >= 6
    assert set(counts.values()) == {1}


def test_production_survives_the_loss_of_any_pod() -> None:
    rendered = render(files=values_files(["production-ha", "operators"]), api_versions=CRD_APIS)
    scaled = {
        each.spec["scaleTargetRef"]["name"]: each.spec["minReplicas"]
        for each in rendered.all("HorizontalPodAutoscaler")
    }
    for each in rendered.all("Deployment"):
        assert each.spec.get("replicas", scaled.get(each.name, 0)) >= 2, each.name
    assert rendered.one("Cluster", "bobrai-postgresql").spec["instances"] >= 3
    assert rendered.one("RabbitmqCluster", "bobrai-rabbitmq").spec["replicas"] >= 3


def test_the_images_that_make_builds_are_those_that_the_chart_asks_for() -> None:
    recipe = subprocess.run(["make", "--dry-run", "images"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    built = set(re.findall(r" -t (\S+)", recipe.stdout))
    rendered = render()
    asked = {
        container["image"]
        for name in ("bobrai-api", "bobrai-worker-default")
        for container in rendered.one("Deployment", name).containers
    }
    assert asked <= built
    for page in ("README.md", "docs/containers.md", "k8s/README.md"):
        named = set(re.findall(r"ghcr\.io/bobrai/bobrai-\w+:[\d.]*\d", (REPOSITORY / page).read_text()))
        assert set() < named <= asked, page


@pytest.mark.parametrize("file", ["argocd-application.yaml", "flux-helmrelease.yaml"])
def test_gitops_objects_are_valid_and_name_files_that_exist(file: str) -> None:
    objects = list(yaml.safe_load_all((K8S / file).read_text()))
    manifests = [Manifest(each, f"k8s/{file}") for each in objects]
    assert [fault for manifest in manifests for fault in faults(manifest, "1.37")] == []
    spec = objects[-1]["spec"]
    if objects[-1]["kind"] == "Application":
        chart = REPOSITORY / spec["source"]["path"]
        files = [(chart / each).resolve() for each in spec["source"]["helm"]["valueFiles"]]
        values = spec["source"]["helm"]["valuesObject"]
    else:
        chart = REPOSITORY / spec["chart"]["spec"]["chart"]
        files = [REPOSITORY / each for each in spec["chart"]["spec"]["valuesFiles"]]
        values = spec["values"]
    assert chart == CHART
    # renders are remembered: another one is had by another value, which the test's pod alone shows
    first, second = (render({**values, "tests": {"timeoutSeconds": each}}, files=files) for each in (60, 61))
    assert [each.body for each in first if each.kind != "Pod"] == [each.body for each in second if each.kind != "Pod"]


def test_the_kind_cluster_has_three_zones_and_is_valid() -> None:
    cluster = yaml.safe_load((K8S / "kind.yaml").read_text())
    assert tool_faults("kind", cluster) == []
    zones = [node.get("labels", {}).get("topology.kubernetes.io/zone") for node in cluster["nodes"]]
    assert [node["role"] for node in cluster["nodes"]] == ["control-plane", "worker", "worker", "worker"]
    assert len(set(zones[1:])) == 3


def test_skaffold_is_valid_as_it_is() -> None:
    assert tool_faults("skaffold", without_patch_values(SKAFFOLD)) == []


def test_a_field_that_skaffold_does_not_know_is_found() -> None:
    wrong = without_patch_values(SKAFFOLD)
    wrong["deploy"]["helm"]["releases"][0]["valueFiles"] = []
    assert any("valueFiles" in fault for fault in tool_faults("skaffold", wrong))


PROFILE_SETS = [["dev"], ["dev", "kind"], ["dev", "minikube"], ["kind", "operators"], ["prod"], []]


@pytest.mark.parametrize("profiles", PROFILE_SETS, ids=lambda names: "+".join(names) or "none")
def test_every_profile_makes_a_valid_file_that_installs_the_built_images(profiles: list[str]) -> None:
    config = patched(*profiles)
    assert tool_faults("skaffold", without_patch_values(config)) == []
    images = {
        container["image"]
        for each in deployed(config).all("Deployment")
        if each.name.startswith(("bobrai-api", "bobrai-worker", "bobrai-dispatcher", "bobrai-external"))
        for container in each.containers
    }
    assert images == {"bobrai_api:built", "bobrai_worker:built"}


def test_profiles_are_those_that_the_page_names() -> None:
    assert list(PROFILES) == ["dev", "kind", "minikube", "operators", "prod"]
    for name in PROFILES:
        assert f"`{name}`" in (K8S / "README.md").read_text()


def test_skaffold_builds_targets_that_exist_and_syncs_to_where_they_run() -> None:
    start = (K8S / "dev" / "start.sh").read_text()
    artifacts = patched("dev")["build"]["artifacts"]
    assert [each["image"] for each in artifacts] == ["bobrai-api", "bobrai-worker"]
    for artifact in artifacts:
        dockerfile = (REPOSITORY / artifact["docker"]["dockerfile"]).read_text()
        assert f"AS {artifact['docker']['target']}\n" in dockerfile
        for rule in artifact["sync"]["manual"]:
            assert f'exec watchfiles --sigint-timeout 15 "bobrai $*" {rule["dest"]} ;;' in start
            assert f"echo {rule['dest']} >" in dockerfile
            assert list(REPOSITORY.glob(rule["src"])), rule["src"]
            assert rule["src"].startswith(rule["strip"])


def test_forwarded_ports_and_the_smoke_test_lead_to_services_of_the_chart() -> None:
    services = {each.name: each.spec for each in deployed(SKAFFOLD).all("Service")}
    for forward in SKAFFOLD["portForward"]:
        ports = [port["port"] for port in services[forward["resourceName"]]["ports"]]
        assert forward["port"] in ports
        assert forward["namespace"] == SKAFFOLD["deploy"]["helm"]["releases"][0]["namespace"]
    (verify,) = SKAFFOLD["verify"]
    assert verify["container"]["image"] in [each["image"] for each in SKAFFOLD["build"]["artifacts"]]
    command, url, *_ = shlex.split(" ".join(verify["container"]["args"]))
    assert command == "smoke"
    service, namespace, _ = (urlsplit(url).hostname or "").split(".")
    assert urlsplit(url).port in [port["port"] for port in services[service]["ports"]]
    assert namespace == SKAFFOLD["portForward"][0]["namespace"]
    path = verify["executionMode"]["kubernetesCluster"]["jobManifestPath"]
    job = Manifest(yaml.safe_load((REPOSITORY / path).read_text()), path)
    assert faults(job, "1.30") == []
    test = deployed(SKAFFOLD).one("Pod", "bobrai-smoke")
    assert job.body["metadata"]["namespace"] == namespace
    assert job.pod_metadata["labels"].items() <= test.labels.items(), "network policies know it"
    assert job.pod["securityContext"].items() <= test.pod["securityContext"].items()
    assert job.container(verify["container"]["name"])["securityContext"] == test.container("smoke")["securityContext"]


def test_the_smoke_test_runs_without_skaffold_as_the_page_says() -> None:
    (text,) = re.findall(r"--patch '(.*?)' \| kubectl create", (K8S / "README.md").read_text(), re.DOTALL)
    (patch,) = json.loads(text)["spec"]["template"]["spec"]["containers"]
    job = Manifest(yaml.safe_load((K8S / "smoke-job.yaml").read_text()), "smoke-job.yaml")
    made = render()
    test = made.one("Pod", "bobrai-smoke").container("smoke")
    assert job.container(patch["name"])
    assert patch["image"] == test["image"]
    assert patch["args"] == test["args"][:2]


def test_the_smoke_test_is_told_which_image_was_built() -> None:
    """Skaffold replaces the image of a test by what a file of its build says, and looks for none itself."""
    commands = re.findall(r"skaffold verify.*", (K8S / "README.md").read_text())
    assert commands
    assert all("--build-artifacts" in command for command in commands)


@pytest.mark.parametrize("server", ["postgresql", "rabbitmq"])
def test_a_new_password_is_followed_by_a_restart_of_all_who_read_it(server: str) -> None:
    page = (REPOSITORY / "docs" / "operations.md").read_text()
    _, _, after = page.partition(f"kubectl patch secret bobrai-{server} ")
    restarts = re.findall(r"kubectl rollout restart (statefulset|deployment) ([^&\n]+)", after.partition("```")[0])
    restarted = {(kind, name) for kind, names in restarts for name in names.split()}
    readers = {
        (item.kind.lower(), item.name)
        for item in render()
        if item.kind in {"Deployment", "StatefulSet"}
        for container in item.containers
        for entry in container.get("env") or []
        if (entry.get("valueFrom") or {}).get("secretKeyRef", {}).get("name") == f"bobrai-{server}"
    }
    assert readers == restarted


def test_the_page_makes_the_secrets_that_gitops_values_name() -> None:
    page = (K8S / "README.md").read_text()
    secrets = yaml.safe_load((K8S / "values-gitops.yaml").read_text())["secrets"]
    made = re.findall(r"create secret generic (\S+) (.*?)(?:`|\n\$|\n```)", page, re.DOTALL)
    keys = {name: set(re.findall(r"--from-(?:literal|file)=([\w.-]+)", text)) for name, text in made}
    assert keys == {
        secrets["postgresql"]["existingSecret"]: {
            "username", "password", "postgres-password", "replication-password", "stats-password",
            "monitoring-password",
        },
        secrets["rabbitmq"]["existingSecret"]: {"username", "password", "erlang-cookie"},
        secrets["apiKeys"]["existingSecret"]: {"admin", "smoke", "scaling"},
        secrets["externalMetricsTls"]["existingSecret"]: {"tls.crt", "tls.key", "ca.crt"},
    }  # fmt: skip
    service = render(BUNDLE, files=values_files(["gitops"])).one("APIService", "v1beta1.external.metrics.k8s.io")
    host = f"{service.spec['service']['name']}.{service.spec['service']['namespace']}.svc"
    assert f"subjectAltName=DNS:{host} " in page
