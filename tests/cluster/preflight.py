"""Whether a run can begin, asked before anything is made: a context, rights, a StorageClass, values that render.

Out: a `Plan`, or Refused with the one thing to change. Also decides what cannot be tried on this cluster, and why.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.charts.helm import CHART
from tests.cluster.kube import Body, Command, Kubectl, Refused, current_context, find_helm

RELEASE = "bobrai"
VALUES = Path(__file__).with_name("values.yaml")
API_SERVICE = "v1beta1.external.metrics.k8s.io"
NO_AUTOSCALER = ["--set=autoscaling.provider=none"]
RIGHTS = (
    "create deployments.apps", "create statefulsets.apps", "create jobs.batch", "create cronjobs.batch", "create pods",
    "create services", "create secrets", "create configmaps", "create serviceaccounts", "create persistentvolumeclaims",
    "create horizontalpodautoscalers.autoscaling", "create poddisruptionbudgets.policy", "delete pods",
    "create pods --subresource=exec", "get pods --subresource=log", "patch deployments.apps --subresource=scale",
)  # fmt: skip
"""What a run does inside its namespace."""


@dataclass(frozen=True)
class Options:
    """What the user chose."""

    api_image: str = ""
    worker_image: str = ""
    values: tuple[Path, ...] = ()
    keep: bool = False

    @property
    def arguments(self) -> list[str]:
        """The same for Helm."""
        files = [f"--values={file}" for file in (VALUES, *self.values)]
        images = {"api": self.api_image, "worker": self.worker_image}
        return files + [f"--set-string=images.{name}.reference={image}" for name, image in images.items() if image]


@dataclass(frozen=True)
class Plan:
    """Where a run takes place, and with what."""

    kubectl: Kubectl
    """In no namespace: for what belongs to the cluster."""
    helm: Command
    namespace: str
    options: Options
    arguments: list[str]
    """Helm's, the same for install and upgrade."""
    objects: list[Body] = field(repr=False)
    about: list[str] = field(repr=False)
    without_scaling: str = ""
    """Why workers cannot be scaled by the backlog here; empty when they can."""


def plan(options: Options) -> Plan:
    """Ask everything that can be asked beforehand."""
    path, context = current_context()
    kubectl = Kubectl(path, context)
    version = kubectl.attempt("version", "--output=json", seconds=30)
    if version.returncode != 0:
        raise Refused(f"the cluster of the context {context} does not answer: {_last_line(version.stderr)}")
    server = yaml.safe_load(version.stdout)["serverVersion"]["gitVersion"]
    helm_path, helm_version = find_helm()
    namespace = f"bobrai-test-{secrets.token_hex(3)}"
    _check_rights(kubectl, namespace)
    helm = Command([str(helm_path), f"--kube-context={context}", f"--namespace={namespace}"])
    without_scaling = _without_scaling(kubectl)
    arguments = [*options.arguments, *(NO_AUTOSCALER if without_scaling else [])]
    objects = _rendered(helm, arguments)
    _check_storage(kubectl, objects)
    nodes = kubectl.attempt("get", "nodes", "--output=name").stdout.split()
    images = sorted({image_of(objects, each) for each in ("api", "worker-default")})
    about = [
        f"context    {context}: Kubernetes {server.removeprefix('v')}; nodes: {len(nodes) or 'unknown'}",
        f"tools      Helm {helm_version}, {path}",
        *(f"image      {image}" for image in images),
        f"namespace  {namespace}, {'kept' if options.keep else 'removed at the end'}; nothing else is touched",
    ]
    return Plan(kubectl, helm, namespace, options, arguments, objects, about, without_scaling)


def pod_of(objects: Iterable[Body], component: str) -> Body:
    """The spec of the pods of a component's Deployment."""
    for body in objects:
        if (body["kind"], body["metadata"]["name"]) == ("Deployment", f"{RELEASE}-{component}"):
            spec: Body = body["spec"]["template"]["spec"]
            return spec
    raise Refused(
        f"the values make no Deployment {RELEASE}-{component}; leave names and the pool `default` as they are"
    )


def image_of(objects: Iterable[Body], component: str) -> str:
    """The image of a component's pods."""
    return str(pod_of(objects, component)["containers"][0]["image"])


def _check_rights(kubectl: Kubectl, namespace: str) -> None:
    missing = [] if kubectl.may("create", "namespaces") else ["create namespaces"]
    missing += [right for right in RIGHTS if not kubectl.may(*right.split(), f"--namespace={namespace}")]
    if missing:
        raise Refused(
            f"the user of the context {kubectl.context} may not: {', '.join(missing)}. Ask for these rights, or use a "
            f"cluster of your own, such as `kind create cluster` makes"
        )


def _without_scaling(kubectl: Kubectl) -> str:
    found = kubectl.attempt("get", "apiservice", API_SERVICE, "--output=json")
    if found.returncode == 0:
        service = yaml.safe_load(found.stdout)["spec"].get("service") or {}
        return (
            f"the cluster's external metrics, of which there is one, come from "
            f"{service.get('namespace')}/{service.get('name')}"
        )
    if not kubectl.may("create", "apiservices.apiregistration.k8s.io"):
        return "no right to create apiservices, which the external metrics need"
    if not kubectl.may("create", "rolebindings.rbac.authorization.k8s.io", "--namespace=kube-system"):
        return "no right to create rolebindings in kube-system, which the external metrics need"
    return ""


def _rendered(helm: Command, arguments: list[str]) -> list[Body]:
    done = helm.attempt("template", RELEASE, str(CHART), "--dry-run=server", "--skip-tests", *arguments)
    if done.returncode != 0:
        raise Refused(f"Helm refuses the values: {done.stderr.strip()}")
    return [body for body in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if body]


def _check_storage(kubectl: Kubectl, objects: Iterable[Body]) -> None:
    claims: list[dict[str, Any]] = []
    for body in objects:
        claims += [body] if body["kind"] == "PersistentVolumeClaim" else []
        claims += body["spec"].get("volumeClaimTemplates", []) if body["kind"] == "StatefulSet" else []
    if all(claim["spec"].get("storageClassName") for claim in claims):
        return
    for each in kubectl.items("storageclass"):
        annotations = each["metadata"].get("annotations") or {}
        if "true" in (annotations.get(f"storageclass{beta}.kubernetes.io/is-default-class") for beta in ("", ".beta")):
            return
    raise Refused(
        "the cluster has no default StorageClass (kubectl get storageclass); name one in VALUES, or mark one: "
        "kubectl annotate storageclass NAME storageclass.kubernetes.io/is-default-class=true"
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no answer"])[-1]
