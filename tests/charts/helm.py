"""Rendering the chart with a real Helm: values go in, typed manifests come out, and Helm's own message on a refusal.

`render()` is what tests call; equal calls are rendered once per process, so treat what it returns as read-only.
`lint()`, `notes()` and `refusal()` are its siblings. The binary comes from `helm_binary.py`; no cluster is ever asked.
"""

import functools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import yaml

from tests.charts.helm_binary import REPOSITORY, find

CHART = REPOSITORY / "charts" / "bobrai"
CI = CHART / "ci"
RUN_SECONDS = 60
FEW_COLLECTIONS = "400"  # of garbage: a third of what a Go program that runs so shortly computes by default

Body = dict[str, Any]

CRD_APIS = (
    "postgresql.cnpg.io/v1",
    "postgresql.cnpg.io/v1/Cluster",
    "postgresql.cnpg.io/v1/Pooler",
    "postgresql.cnpg.io/v1/ScheduledBackup",
    "rabbitmq.com/v1beta1",
    "rabbitmq.com/v1beta1/RabbitmqCluster",
    "keda.sh/v1alpha1",
    "keda.sh/v1alpha1/ScaledObject",
    "keda.sh/v1alpha1/TriggerAuthentication",
    "monitoring.coreos.com/v1",
    "monitoring.coreos.com/v1/ServiceMonitor",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "monitoring.coreos.com/v1alpha1",
    "monitoring.coreos.com/v1alpha1/AlertmanagerConfig",
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1/HTTPRoute",
    "apiregistration.k8s.io/v1",
    "apiregistration.k8s.io/v1/APIService",
)
"""What a cluster offers that has every operator: pass it as `api_versions` to render the modes that need one."""

CLUSTER_SCOPED = {"APIService", "ClusterRole", "ClusterRoleBinding", "Namespace"}

POD_PATHS = {
    "Pod": ("spec",),
    "Deployment": ("spec", "template", "spec"),
    "StatefulSet": ("spec", "template", "spec"),
    "DaemonSet": ("spec", "template", "spec"),
    "Job": ("spec", "template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
}


class HelmError(Exception):
    """Helm refused; the message is what it printed."""


@dataclass(frozen=True)
class Manifest:
    """One rendered object."""

    body: Body
    source: str
    """The template's path inside the chart, for example templates/api/deployment.yaml."""

    @property
    def kind(self) -> str:
        return str(self.body["kind"])

    @property
    def api_version(self) -> str:
        return str(self.body["apiVersion"])

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def labels(self) -> dict[str, str]:
        return self.body["metadata"].get("labels") or {}

    @property
    def annotations(self) -> dict[str, str]:
        return self.body["metadata"].get("annotations") or {}

    @property
    def spec(self) -> Body:
        return self.body.get("spec") or {}

    @property
    def pod(self) -> Body:
        """The spec of the pods that this object makes; empty when it makes none."""
        path = POD_PATHS.get(self.kind)
        return {} if path is None else functools.reduce(lambda body, key: body[key], path, self.body)

    @property
    def pod_metadata(self) -> Body:
        """The metadata of the pods that this object makes."""
        path = POD_PATHS[self.kind][:-1]
        return functools.reduce(lambda body, key: body[key], path, self.body).get("metadata") or {}

    @property
    def containers(self) -> list[Body]:
        """Every container, the init containers first."""
        return [*(self.pod.get("initContainers") or []), *(self.pod.get("containers") or [])]

    def container(self, name: str) -> Body:
        """The container or init container of this name."""
        return next(container for container in self.containers if container["name"] == name)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    __repr__ = __str__


@dataclass(frozen=True)
class Rendered(Sequence[Manifest]):
    """All objects of one render, in Helm's order."""

    manifests: tuple[Manifest, ...]
    text: str = field(repr=False)

    @overload
    def __getitem__(self, index: int) -> Manifest: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Manifest]: ...
    def __getitem__(self, index: int | slice) -> Manifest | Sequence[Manifest]:
        return self.manifests[index]

    def __len__(self) -> int:
        return len(self.manifests)

    def __iter__(self) -> Iterator[Manifest]:
        return iter(self.manifests)

    def all(self, kind: str) -> list[Manifest]:
        """Every object of a kind."""
        return [manifest for manifest in self.manifests if manifest.kind == kind]

    def find(self, kind: str, name: str) -> Manifest | None:
        """The object of this kind and name, or None."""
        found = [manifest for manifest in self.all(kind) if manifest.name == name]
        if len(found) > 1:
            raise AssertionError(f"{len(found)} objects are called {kind}/{name}")
        return found[0] if found else None

    def one(self, kind: str, name: str) -> Manifest:
        """The object of this kind and name; what there is instead is named when it is missing."""
        found = self.find(kind, name)
        if found is None:
            raise AssertionError(f"no {kind}/{name} among {sorted(map(str, self.all(kind)))}")
        return found

    def pods(self) -> list[Manifest]:
        """Every object that makes pods, the test's pod included."""
        return [manifest for manifest in self.manifests if manifest.kind in POD_PATHS]


class UniqueKeyLoader(yaml.CSafeLoader):
    """YAML that refuses a key given twice, as the server-side apply of Helm 4 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if doubles := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"keys given twice: {doubles}", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def ci_shapes() -> list[Path]:
    """The values files of every supported shape."""
    return sorted(CI.glob("*-values.yaml"))


def render(
    values: Mapping[str, Any] | None = None,
    *,
    files: Iterable[Path] = (),
    release: str = "bobrai",
    namespace: str = "bobrai",
    kube_version: str = "1.36",
    api_versions: Iterable[str] = (),
    upgrade: bool = False,
    cluster: Path | None = None,
    chart: Path = CHART,
    major: int = 4,
) -> Rendered:
    """Render the chart; `values` win over `files`. Raises HelmError with Helm's message.

    With `cluster`, a kubeconfig, the templates may ask that API server, as in an install; such renders are not cached.
    """
    arguments = ["template", release, str(chart), "--namespace", namespace, "--kube-version", kube_version]
    arguments += [f"--api-versions={version}" for version in api_versions]
    arguments += ["--is-upgrade"] if upgrade else []
    if cluster is not None:
        arguments += ["--dry-run=server", "--disable-openapi-validation", f"--kubeconfig={cluster}"]
        return _parsed(_run(tuple(arguments), tuple(files), _text(values), major))
    return _rendered(tuple(arguments), tuple(files), _text(values), major)


def lint(values: Mapping[str, Any] | None = None, *, files: Iterable[Path] = (), major: int = 4) -> str:
    """Return what `helm lint --strict` prints. Raises HelmError when it finds a fault."""
    return _run(("lint", str(CHART), "--strict", "--namespace", "bobrai"), tuple(files), _text(values), major)


def package(folder: Path) -> Path:
    """Package the chart as `helm push` would take it, and return the archive."""
    _run(("package", str(CHART), f"--destination={folder}"), (), None, 4)
    return next(folder.glob("*.tgz"))


def notes(
    values: Mapping[str, Any] | None = None,
    *,
    files: Iterable[Path] = (),
    release: str = "bobrai",
    namespace: str = "bobrai",
) -> str:
    """Return what a user reads after `helm install`."""
    arguments = ("install", release, str(CHART), "--namespace", namespace, "--dry-run=client")
    printed = _run(arguments, tuple(files), _text(values), 4)
    return printed.partition("\nNOTES:\n")[2]


def refusal(values: Mapping[str, Any] | None = None, **options: Any) -> str:
    """Return Helm's message for values that must be refused."""
    try:
        render(values, **options)
    except HelmError as error:
        return str(error)
    raise AssertionError(f"Helm rendered what it should refuse: {values} {options}")


def _text(values: Mapping[str, Any] | None) -> str:
    return json.dumps(values or {}, sort_keys=True)


@functools.lru_cache(maxsize=512)
def _rendered(arguments: tuple[str, ...], files: tuple[Path, ...], values: str, major: int) -> Rendered:
    return _parsed(_run(arguments, files, values, major))


def _parsed(text: str) -> Rendered:
    manifests = []
    for document in re.split(r"^---$", text, flags=re.MULTILINE):
        body = yaml.load(document, Loader=UniqueKeyLoader)
        if body is not None:
            source = re.search(r"^# Source: [^/]+/(.*)$", document, flags=re.MULTILINE)
            manifests.append(Manifest(body, source[1] if source else ""))
    return Rendered(tuple(manifests), text)


def _run(arguments: tuple[str, ...], files: tuple[Path, ...], values: str | None, major: int) -> str:
    command = [str(find(major)), *arguments, *(f"--values={file}" for file in files)]
    command += [] if values is None else ["--values=-"]
    with tempfile.TemporaryDirectory(prefix="bobrai-helm-") as home:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
        environment |= {f"HELM_{kind}_HOME": home for kind in ("CACHE", "CONFIG", "DATA")}
        environment["KUBECONFIG"] = f"{home}/none"
        environment["GOGC"] = FEW_COLLECTIONS
        done = subprocess.run(
            command, input=values, capture_output=True, text=True, check=False, timeout=RUN_SECONDS, env=environment
        )
    if done.returncode != 0:
        raise HelmError((done.stdout if arguments[0] == "lint" else "") + done.stderr)
    return done.stdout
