"""What Kubernetes has of bobrAI's autoscaling: its API server, which asks the external metrics server for a backlog.

In: a folder and a port. Out: the settings of `bobrai external-metrics`, and answers to what the API server asks. The
Kubernetes is the stand-in of the tests of external metrics.
"""

import shutil
import ssl
import urllib.request
from pathlib import Path

from tests.integration.external_metrics.certificates import Authority, client_context
from tests.integration.external_metrics.cluster import Cluster
from tests.integration.external_metrics.conftest import BACKLOG, SPEAKER

HOST = "127.0.0.1"


class Autoscaler:
    """One Kubernetes, as far as the external metrics server meets it."""

    def __init__(self, folder: Path, port: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        authority, front_proxy = Authority(folder, "cluster"), Authority(folder, "front-proxy")
        pair = authority.server()
        self._cluster = Cluster(folder, authority)
        self._cluster.trusts(front_proxy)
        self._url = f"https://{HOST}:{port}{BACKLOG}"
        self._context: ssl.SSLContext = client_context(authority, front_proxy.client("front-proxy-client"))
        self.environment = {
            "BOBRAI_EXTERNAL_METRICS_BIND": f"{HOST}:{port}",
            "BOBRAI_EXTERNAL_METRICS_CERTIFICATE": str(pair.certificate),
            "BOBRAI_EXTERNAL_METRICS_KEY": str(pair.key),
            "BOBRAI_EXTERNAL_METRICS_KUBERNETES_URL": self._cluster.url,
            "BOBRAI_EXTERNAL_METRICS_SERVICE_ACCOUNT_DIR": str(self._cluster.account),
            "BOBRAI_EXTERNAL_METRICS_DELETION_COST": "true",
            "BOBRAI_EXTERNAL_METRICS_DELETION_COST_SECONDS": "1",
        }

    def is_answered(self) -> bool:
        """Ask for the backlog; whether there is a figure."""
        request = urllib.request.Request(self._url, headers=SPEAKER)
        try:
            with urllib.request.urlopen(request, timeout=5, context=self._context) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def close(self) -> None:
        """End the Kubernetes."""
        self._cluster.close()
