"""A small stand-in for the Kubernetes API, over real HTTPS: one ConfigMap to read, pods to patch, a token to show.

There is no cluster where the tests run. What it answers is what Kubernetes' API reference says for these two calls.
"""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.integration.external_metrics.certificates import Authority

CONFIG_MAP = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"


class Cluster:
    """The API server of one test; a test changes its fields at any time."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.account = folder / "serviceaccount"
        self.account.mkdir()
        self.token = "first-token"
        self.data: dict[str, str] = {}
        self.refuses = 0  # a status instead of answers
        self.pods: dict[str, dict[str, str]] = {}  # name -> annotations
        self.patches: list[tuple[str, str]] = []  # pod, cost; also of pods that are gone
        self.reads = 0
        self.project()
        (self.account / "ca.crt").write_text(authority.pem)
        (self.account / "namespace").write_text("shop")
        pair = authority.server("kubernetes.default.svc")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://localhost:{self._server.server_port}"

    def project(self) -> None:
        """Write the token into the pod's folder, as the kubelet does when it is rotated."""
        (self.account / "token").write_text(self.token + "\n")

    def trusts(self, *authorities: Authority, names: list[str] | None = None) -> None:
        """Let these authorities' certificates be the front proxy's."""
        self.data = {
            "client-ca-file": "not for us",
            "requestheader-client-ca-file": "".join(authority.pem for authority in authorities),
            "requestheader-allowed-names": json.dumps(names or []),
            "requestheader-username-headers": '["X-Remote-User"]',
        }

    def close(self) -> None:
        """Stop to answer."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(cluster) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler has a self of its own
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self._admitted():
                    cluster.reads += 1
                    found = self.path == CONFIG_MAP
                    self._answer(200, {"kind": "ConfigMap", "data": cluster.data}) if found else self._answer(404, {})

            def do_PATCH(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self._admitted():
                    return
                *_, namespace, kind, name = self.path.split("/")
                assert (namespace, kind) == ("shop", "pods")
                assert self.headers["Content-Type"] == "application/merge-patch+json"
                annotations = body["metadata"]["annotations"]
                cluster.patches.append((name, annotations["controller.kubernetes.io/pod-deletion-cost"]))
                if name not in cluster.pods:
                    self._answer(404, {"message": f'pods "{name}" not found'})
                    return
                cluster.pods[name].update(annotations)
                self._answer(200, {"kind": "Pod"})

            def _admitted(self) -> bool:
                if self.headers["Authorization"] != f"Bearer {cluster.token}":
                    self._answer(401, {"message": "Unauthorized"})
                elif cluster.refuses:
                    self._answer(cluster.refuses, {"message": "refused by the test"})
                else:
                    return True
                return False

            def _answer(self, status: int, content: Any) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
