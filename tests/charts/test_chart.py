"""The chart as a thing to read, package and publish: both Helms, stable renders, notes, file sizes, annotations."""

import re
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.helm import CHART, CI, CRD_APIS, HelmError, Rendered, lint, notes, package, render
from tests.charts.helm_binary import REPOSITORY

TEMPLATES = sorted(file for file in (CHART / "templates").rglob("*") if file.is_file())
MOST_LINES = 120
EXISTING = CI / "existing-secrets-values.yaml"


def _metadata() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return found


@pytest.mark.parametrize("major", [3, 4])
def test_lint_finds_nothing(shape: Path, major: int) -> None:
    try:
        printed = lint({"validation": {"customResources": False}}, files=[shape], major=major)
    except HelmError as error:
        pytest.fail(str(error))
    assert "[WARNING]" not in printed


def test_helm_3_and_4_render_the_same() -> None:
    older, newer = render(files=[EXISTING], major=3), render(files=[EXISTING], major=4)
    assert {str(item): item.body for item in older} == {str(item): item.body for item in newer}


def test_helm_3_renders_every_shape(shape: Path, rendered: Rendered) -> None:
    older = render(files=[shape], api_versions=CRD_APIS, major=3)
    assert [str(item) for item in older] == [str(item) for item in rendered]


def test_two_renders_with_existing_secrets_are_equal_to_the_byte() -> None:
    once, again = render(files=[EXISTING], release="bobrai"), render(files=[EXISTING], release="bobrai", upgrade=True)
    assert once.text == again.text


def test_all_that_two_renders_differ_in_are_generated_secrets() -> None:
    once = {str(item): item.body for item in render()}
    again = {str(item): item.body for item in render(upgrade=True)}
    different = {name for name in once if once[name] != again[name]}
    assert {name.partition("/")[0] for name in different} <= {"Secret", "APIService"}


def test_notes_say_the_next_three_steps(shape: Path, rendered: Rendered) -> None:
    said = notes({"validation": {"customResources": False}}, files=[shape])
    assert "helm --namespace bobrai test bobrai" in said
    https = shape.name == "tls-values.yaml"
    to = "--resolve bobrai-api:8001:127.0.0.1 -X POST https://bobrai-api" if https else "-X POST localhost"
    assert f"{to}:8001/api/v1/tasks" in said
    assert "kubectl --namespace bobrai" in said
    assert "%!" not in said
    assert "<no value>" not in said
    for name in re.findall(r" scale deployment (\S+)", said):
        deployment = rendered.one("Deployment", name)
        assert "replicas" not in deployment.spec, (
            "Helm 4 would refuse the next upgrade: somebody else changed a number of its own"
        )


def test_kubectl_enters_a_pod_of_several_containers_without_being_told_which(rendered: Rendered) -> None:
    for item in rendered.pods():
        if len(item.containers) > 1:
            named = (item.pod_metadata.get("annotations") or {})["kubectl.kubernetes.io/default-container"]
            assert named in [container["name"] for container in item.pod["containers"]], item
    for item in rendered.all("RabbitmqCluster"):
        template = item.spec["override"]["statefulSet"]["spec"]["template"]
        assert template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == "rabbitmq"


def test_another_container_may_be_the_one_that_kubectl_enters() -> None:
    wished = {"kubectl.kubernetes.io/default-container": "proxy"}
    api = render({"api": {"pod": {"annotations": wished}}}).one("Deployment", "bobrai-api")
    assert api.pod_metadata["annotations"].items() >= wished.items()


def test_notes_name_services_that_exist() -> None:
    said, made = notes(release="tasks"), {f"service/{item.name}" for item in render(release="tasks").all("Service")}
    assert set(re.findall(r"service/[a-z-]+", said)) <= made


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: str(file.relative_to(CHART)))
def test_a_template_fits_a_screen_or_two(template: Path) -> None:
    assert len(template.read_text().splitlines()) <= MOST_LINES


def test_every_helper_is_used() -> None:
    text = "\n".join(template.read_text() for template in TEMPLATES)
    defined = re.findall(r'define "([^"]+)"', text)
    assert len(defined) == len(set(defined))
    assert [name for name in defined if f'include "{name}"' not in text] == []


def test_only_the_connections_know_how_the_servers_are_had() -> None:
    """Elsewhere the mode is asked only to leave a whole file out, to refuse, or for the credentials of that mode."""
    knowing = {"_connections.tpl", "validate.yaml", "validate-settings.yaml", "NOTES.txt"}
    for template in TEMPLATES:
        lines = template.read_text().splitlines()
        body = lines[1:] if lines[0].startswith("{{- if") else lines
        if template.name not in knowing and template.parent.name not in {"secrets", "rabbitmq", "postgresql"}:
            assert not re.search(r"(postgresql|rabbitmq)\.mode", "\n".join(body)), template


@pytest.mark.parametrize(
    "template", [file for file in TEMPLATES if file.suffix == ".yaml" and file.parent.name != "templates"],
    ids=lambda file: str(file.relative_to(CHART)),
)  # fmt: skip
def test_a_template_is_named_by_the_kind_that_it_makes(template: Path) -> None:
    if template.parent.name in {"secrets", "tests"}:
        return
    text = template.read_text()
    made = re.findall(r"^kind: (\w+)$", text, flags=re.MULTILINE)
    made += re.findall(r'include "bobrai\.(serviceAccount|podDisruptionBudget|podMonitor)"', text)
    kinds = {kind.lower() for kind in made}
    short = template.stem.rpartition("-")[2]
    wanted = {"pdb": "poddisruptionbudget", "hpa": "horizontalpodautoscaler"}.get(short, short)
    assert any(kind.startswith(wanted) for kind in kinds), kinds


def test_nothing_comes_from_another_chart() -> None:
    assert "dependencies" not in _metadata()
    assert not (CHART / "charts").exists()


def test_the_archive_holds_what_users_need_and_nothing_else(tmp_path: Path) -> None:
    with tarfile.open(package(tmp_path)) as archive:
        names = {name.removeprefix("bobrai/") for name in archive.getnames()}
    pages = {"Chart.yaml", "values.yaml", "values.schema.json", "README.md", "UPGRADING.md", ".helmignore"}
    assert {name for name in names if "/" not in name} == pages
    folders = {"templates", "files", "alerts", "dashboards", "ci"}
    assert {name.partition("/")[0] for name in names if "/" in name} <= folders
    pages = (CHART / "README.md").read_text() + (CHART / "UPGRADING.md").read_text()
    assert set(re.findall(r"ci/[a-z-]+-values\.yaml", pages)) <= names


def test_chart_and_product_have_one_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    metadata = _metadata()
    assert metadata["appVersion"] == project["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[\w.]+)?", metadata["version"])


def test_artifact_hub_can_read_the_annotations() -> None:
    metadata = _metadata()
    annotations = metadata["annotations"]
    assert annotations["artifacthub.io/license"] == "Apache-2.0"
    assert annotations["artifacthub.io/category"] in {
        "ai-machine-learning", "database", "integration-delivery", "monitoring-logging", "networking", "security",
        "storage", "streaming-messaging",
    }  # fmt: skip
    for change in yaml.safe_load(annotations["artifacthub.io/changes"]):
        assert change["kind"] in {"added", "changed", "deprecated", "removed", "fixed", "security"}
        assert change["description"]
    assert metadata["kubeVersion"] == ">=1.30.0-0"
    assert metadata["description"]
    assert metadata["keywords"]


def test_artifact_hub_knows_the_images_that_the_defaults_run() -> None:
    listed = {image["image"] for image in yaml.safe_load(_metadata()["annotations"]["artifacthub.io/images"])}
    assert listed == {container["image"] for pod in render().pods() for container in pod.containers}


def test_the_upgrade_page_has_a_section_for_this_release() -> None:
    assert f"## {_metadata()['version']}" in (CHART / "UPGRADING.md").read_text()
