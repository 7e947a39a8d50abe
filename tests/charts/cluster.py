"""A stand-in for an API server, so that templates can ask what is in the cluster: objects go in, `lookup` finds them.

It answers just what Helm asks before and during a render: its version, which kinds there are, and single objects.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.charts.helm import CLUSTER_SCOPED, Body

KINDS = {
    "v1": ("ConfigMap", "Namespace", "PersistentVolumeClaim", "Pod", "Secret", "Service", "ServiceAccount"),
    "apiregistration.k8s.io/v1": ("APIService",),
    "apps/v1": ("Deployment", "StatefulSet"),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "batch/v1": ("CronJob", "Job"),
    "keda.sh/v1alpha1": ("ScaledObject", "TriggerAuthentication"),
    "networking.k8s.io/v1": ("Ingress", "NetworkPolicy"),
    "policy/v1": ("PodDisruptionBudget",),
    "rbac.authorization.k8s.io/v1": ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
}


def _plural(kind: str) -> str:
    return f"{kind.lower()[:-1]}ies" if kind.endswith("y") else f"{kind.lower()}{'es' if kind.endswith('s') else 's'}"


def _answers(objects: Iterable[Body]) -> dict[str, Any]:
    groups = [_group(version) for version in KINDS if "/" in version]
    found: dict[str, Any] = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
    }
    for version, kinds in KINDS.items():
        resources = [
            {
                "name": _plural(kind),
                "singularName": kind.lower(),
                "namespaced": kind not in CLUSTER_SCOPED,
                "kind": kind,
                "verbs": ["get", "list"],
            }
            for kind in kinds
        ]
        found[_root(version)] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    for held in objects:
        namespace = held["metadata"].get("namespace")
        place = f"/namespaces/{namespace}" if namespace else ""
        found[f"{_root(held['apiVersion'])}{place}/{_plural(held['kind'])}/{held['metadata']['name']}"] = held
    return found


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _group(version: str) -> Body:
    known = {"groupVersion": version, "version": version.partition("/")[2]}
    return {"name": version.partition("/")[0], "versions": [known], "preferredVersion": known}


@contextmanager
def cluster(folder: Path, objects: Iterable[Body]) -> Iterator[Path]:
    """Serve these objects, and yield the kubeconfig that leads to them."""
    answers = _answers(objects)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(answer or status).encode()
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Keep the tests' output free of requests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    kubeconfig = folder / "kubeconfig"
    address = f"http://127.0.0.1:{server.server_port}"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "here", "cluster": {"server": address}}],
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "somebody"}}],
                "users": [{"name": "somebody", "user": {}}],
            }
        )
    )
    try:
        yield kubeconfig
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
