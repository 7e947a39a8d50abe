"""The rendered certificate, APIService and autoscalers, given to the real process and used as Kubernetes would.

The API server reaches the pod through the Service: it asks under the Service's name and believes the APIService's
bundle. The autoscaler then asks for what the rendered HorizontalPodAutoscalers name.
"""

import base64
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bobrai.settings import load
from bobrai.store import queues
from bobrai.store.pool import Database
from tests.charts.helm import Rendered, render
from tests.charts.test_life import environment
from tests.integration.external_metrics.certificates import Authority
from tests.integration.external_metrics.cluster import Cluster
from tests.support.databases import Database as OwnDatabase
from tests.support.processes import Processes

NAMESPACE = "shop"
PREFIX = "BOBRAI_EXTERNAL_METRICS_"
VALUES = {"workers": {"pools": {"default": {}, "media": {"queues": ["media", "thumbnails"], "concurrency": 7}}}}


@pytest.fixture
def rendered() -> Rendered:
    return render(VALUES, namespace=NAMESPACE)


@pytest.fixture
def front_proxy(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "front-proxy-ca")


@pytest.fixture
def cluster(tmp_path: Path, front_proxy: Authority) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, Authority(tmp_path, "cluster-ca"))
    cluster.trusts(front_proxy, names=["front-proxy-client"])
    yield cluster
    cluster.close()


@pytest.fixture
def address(
    tmp_path: Path,
    rendered: Rendered,
    cluster: Cluster,
    processes: Processes,
    database: OwnDatabase,
    free_port: Callable[[], int],
) -> str:
    """Where the process listens: as the pod would run it, but for addresses and folders of this machine."""
    deployment = rendered.one("Deployment", "bobrai-external-metrics")
    container = deployment.container("external-metrics")
    (folder,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "tls"]
    (secret,) = [volume["secret"]["secretName"] for volume in deployment.pod["volumes"] if volume["name"] == "tls"]
    for name, content in rendered.one("Secret", secret).body["data"].items():
        (tmp_path / name).write_bytes(base64.b64decode(content))
    own = {name: value or "" for name, value in environment(container).items() if name.startswith(PREFIX)}
    processes.environment.update({name: value.replace(folder, str(tmp_path)) for name, value in own.items()})
    processes.environment |= {
        f"{PREFIX}BIND": f"127.0.0.1:{free_port()}",
        f"{PREFIX}KUBERNETES_URL": cluster.url,
        f"{PREFIX}SERVICE_ACCOUNT_DIR": str(cluster.account),
        "BOBRAI_DATABASE_URL": database.url,
    }
    processes.start(*container["args"])
    return f"https://{processes.environment[f'{PREFIX}BIND']}"


@pytest.fixture
async def proxy(rendered: Rendered, address: str, front_proxy: Authority) -> AsyncIterator[httpx.AsyncClient]:
    """The API server, which knows of the service what the APIService says."""
    spec = rendered.one("APIService", "v1beta1.external.metrics.k8s.io").spec
    service = rendered.one("Service", spec["service"]["name"])
    assert spec["service"]["port"] in [port["port"] for port in service.spec["ports"]]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=base64.b64decode(spec["caBundle"]).decode())
    pair = front_proxy.client("front-proxy-client")
    context.load_cert_chain(pair.certificate, pair.key)
    async with httpx.AsyncClient(
        base_url=f"{address}/apis/{spec['group']}/{spec['version']}/",
        verify=context,
        headers={"X-Remote-User": "system:serviceaccount:kube-system:horizontal-pod-autoscaler"},
        trust_env=False,
    ) as client:
        client._transport = _Named(client._transport, f"{spec['service']['name']}.{spec['service']['namespace']}.svc")
        yield client


class _Named(httpx.AsyncBaseTransport):
    """Connects to an address, and expects the certificate to have another name."""

    def __init__(self, transport: httpx.AsyncBaseTransport, name: str) -> None:
        self._transport = transport
        self._name = name

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = self._name
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        await self._transport.aclose()


@pytest.fixture
async def measured(database: OwnDatabase) -> AsyncIterator[None]:
    """Figures as a dispatcher would leave them; nobody has used the queue `thumbnails` yet."""
    store = Database(load(database={"url": database.url}).database, pool_size=1)
    await store.open()
    await queues.ensure(store, ["media"])
    await store.fetch("UPDATE queues SET due = length(name), processing = 10, measured_at = now()")
    yield
    await store.close()


def question(metric: dict[str, Any]) -> tuple[str, str]:
    """The metric's name and its selector as the autoscaler writes it."""
    (expression,) = metric["selector"]["matchExpressions"]
    assert expression["operator"] == "In"
    return metric["name"], f"{expression['key']} in ({','.join(sorted(expression['values']))})"


async def test_every_rendered_autoscaler_gets_its_number_through_the_rendered_service(
    rendered: Rendered, proxy: httpx.AsyncClient, measured: None
) -> None:
    assert (await proxy.get("")).json()["kind"] == "APIResourceList"
    got = {}
    for autoscaler in rendered.all("HorizontalPodAutoscaler"):
        external = [
            metric["external"]["metric"] for metric in autoscaler.spec["metrics"] if metric["type"] == "External"
        ]
        for metric in external:
            name, selector = question(metric)
            path = f"namespaces/{autoscaler.body['metadata']['namespace']}/{name}"
            answer = await proxy.get(path, params={"labelSelector": selector})
            assert answer.status_code == 200, answer.text
            got[autoscaler.name] = sum(int(item["value"]) for item in answer.json()["items"])
    assert got == {"bobrai-worker-default": len("default") + 10, "bobrai-worker-media": len("media") + 10}


async def test_the_rendered_probes_answer_without_a_certificate(rendered: Rendered, address: str) -> None:
    container = rendered.one("Deployment", "bobrai-external-metrics").container("external-metrics")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with httpx.AsyncClient(base_url=address, verify=context, trust_env=False) as kubelet:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            assert (asked["scheme"], asked["port"]) == ("HTTPS", "https")
            assert (await kubelet.get(asked["path"])).status_code == 200
