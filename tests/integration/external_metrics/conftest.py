"""External metrics in the test's own process, spoken to over real TLS as Kubernetes' API server speaks to them."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from bobrai.broker.memory import MemoryBroker
from bobrai.dispatcher.measuring import Measuring
from bobrai.external_metrics.main import serve
from bobrai.runtime.lifecycle import Stop
from bobrai.settings import Settings, load
from bobrai.store.pool import Database
from tests.integration.external_metrics.certificates import Authority, Pair, client_context
from tests.integration.external_metrics.cluster import Cluster
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

SERVICE = "bobrai-external-metrics.shop.svc"
BASE = "/apis/external.metrics.k8s.io/v1beta1"
BACKLOG = f"{BASE}/namespaces/shop/bobrai_backlog"
SPEAKER = {"X-Remote-User": "system:serviceaccount:kube-system:horizontal-pod-autoscaler"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The product's processes run on this loop, and TLS is its work."""
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Files:
    """The mounted Secret."""

    certificate: Path
    key: Path

    def write(self, pair: Pair) -> None:
        """Replace its content, as the kubelet does."""
        for source, target in ((pair.certificate, self.certificate), (pair.key, self.key)):
            shutil.copy(source, target.with_suffix(".new"))
            target.with_suffix(".new").rename(target)


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Authority]:
    """Authorities by name, each made once."""
    folder, made = tmp_path_factory.mktemp("authorities"), dict[str, Authority]()

    def get(name: str) -> Authority:
        if name not in made:
            made[name] = Authority(folder, name)
        return made[name]

    return get


@pytest.fixture(scope="session")
def front_proxy(authorities: Callable[[str], Authority]) -> Authority:
    """The authority of the API server's proxy."""
    return authorities("front-proxy-ca")


@pytest.fixture(scope="session")
def proxy_pair(front_proxy: Authority) -> Pair:
    """What the API server's proxy shows."""
    return front_proxy.client("front-proxy-client")


@pytest.fixture(scope="session")
def server_authority(authorities: Callable[[str], Authority]) -> Authority:
    """Whom the API server believes about this service: the `caBundle` of the APIService."""
    return authorities("service-ca")


@pytest.fixture(scope="session")
def server_pair(server_authority: Authority) -> Pair:
    """The service's own certificate."""
    return server_authority.server(SERVICE)


@pytest.fixture
def cluster(tmp_path: Path, authorities: Callable[[str], Authority], front_proxy: Authority) -> Iterator[Cluster]:
    """The Kubernetes API."""
    cluster = Cluster(tmp_path, authorities("cluster-ca"))
    cluster.trusts(front_proxy, names=["front-proxy-client"])
    yield cluster
    cluster.close()


@pytest.fixture
def files(tmp_path: Path, server_pair: Pair) -> Files:
    """The server's certificate as mounted."""
    files = Files(tmp_path / "tls.crt", tmp_path / "tls.key")
    files.write(server_pair)
    return files


@pytest.fixture
def settings_with(
    database: OwnDatabase, cluster: Cluster, files: Files, free_port: Callable[[], int]
) -> Callable[..., Settings]:
    """Makes settings for this test; keywords are fields of the group."""

    def make(*, url: str = "", **fields: Any) -> Settings:
        return load(
            database={"url": url or database.url, "connect_timeout_seconds": 1.0},
            external_metrics={
                "bind": f"127.0.0.1:{free_port()}",
                "health_bind": f"127.0.0.1:{free_port()}",
                "certificate": str(files.certificate),
                "key": str(files.key),
                "kubernetes_url": cluster.url,
                "service_account_dir": str(cluster.account),
                "refresh_seconds": 0.05,
                "deletion_cost_seconds": 0.05,
                **fields,
            },
        )

    return make


class Service:
    """The service under test, and clients of it."""

    def __init__(self, settings: Settings, server_authority: Authority, clients: AsyncExitStack) -> None:
        self.settings = settings
        self._server_authority = server_authority
        self._clients = clients

    async def client(self, shown: Pair | None = None, headers: Mapping[str, str] = SPEAKER) -> httpx.AsyncClient:
        """A client that verifies the service and shows a certificate."""
        context = client_context(self._server_authority, shown)
        address = f"https://{self.settings.external_metrics.bind}"
        client = httpx.AsyncClient(base_url=address, verify=context, headers=dict(headers), timeout=10, trust_env=False)
        return await self._clients.enter_async_context(client)

    async def is_ready(self) -> bool:
        """Whether it should get requests."""
        return (await (await self.client()).get("/readyz")).status_code == 200


@asynccontextmanager
async def serving(settings: Settings, server_authority: Authority, *, ready: bool = True) -> AsyncIterator[Service]:
    """The service until the end of the block."""
    stop = Stop()
    running = asyncio.create_task(serve(settings, stop))
    async with AsyncExitStack() as clients:
        service = Service(settings, server_authority, clients)
        try:
            probe = await service.client()
            await eventually(lambda: _answers(probe, running), message="the service answers")
            if ready:
                await eventually(lambda: _is_ready(probe), message="the service is ready")
            yield service
        finally:
            await clients.aclose()  # or the service would wait for their half of the goodbye
            stop.request("the test is over")
            await running


async def _answers(probe: httpx.AsyncClient, running: "asyncio.Task[None]") -> bool:
    return running.done() or (await probe.get("/livez")).status_code == 200


async def _is_ready(probe: httpx.AsyncClient) -> bool:
    return (await probe.get("/readyz")).status_code == 200


@pytest.fixture
async def service(settings_with: Callable[..., Settings], server_authority: Authority) -> AsyncIterator[Service]:
    """A ready service on this test's database."""
    async with serving(settings_with(), server_authority) as service:
        yield service


@pytest.fixture
async def proxy(service: Service, proxy_pair: Pair) -> httpx.AsyncClient:
    """The API server's proxy, speaking for the autoscaler."""
    return await service.client(proxy_pair)


@pytest.fixture
async def store(database: OwnDatabase) -> AsyncIterator[Database]:
    """The product's pool on this test's database."""
    store = Database(load(database={"url": database.url}).database, pool_size=2, name="bobrai-test")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def measure(store: Database) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Measures all queues once, by the dispatcher's own code."""
    broker = MemoryBroker()
    await broker.start()

    async def once() -> None:
        await store.fetch("UPDATE queues SET measured_at = NULL, waiting_measured_at = NULL")
        await Measuring(load(), store, broker).run_once()

    yield once
    await broker.close()
