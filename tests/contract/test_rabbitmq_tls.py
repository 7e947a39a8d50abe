"""A real RabbitMQ under TLS is believed by its certificate and host name alone, and told apart in the log."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bobrai.broker.first_look import first_look
from bobrai.broker.rabbitmq import RabbitBroker
from bobrai.domain.errors import ConfigurationError
from bobrai.settings import RabbitMQSettings, load
from tests.support.certificates import Authority, Pair
from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.processes import Processes
from tests.support.rabbitmq import RabbitNode, start_nodes
from tests.support.run_folder import RunFolder

CONNECT_SECONDS = 10.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "stranger")


@pytest.fixture
def start(run_folder: RunFolder) -> Iterator[Callable[..., RabbitNode]]:
    """Starts a node of this test's own that shows a certificate, and may ask for one."""
    nodes: list[RabbitNode] = []

    def make(pair: Pair, clients: Path | None = None) -> RabbitNode:
        name = f"tls{run_folder.free_port()}"
        [description] = start_nodes(run_folder, name, 1, pair=pair, clients=clients)
        nodes.append(RabbitNode(run_folder, description))
        return nodes[-1]

    yield make
    for node in nodes:
        node.kill()


def settings_of(url: str, authority: Authority, shown: Pair | None = None) -> RabbitMQSettings:
    files = {} if shown is None else {"tls_certificate": str(shown.certificate), "tls_key": str(shown.key)}
    return load(rabbitmq={"url": url, "tls_ca": str(authority.file), **files}).rabbitmq


@asynccontextmanager
async def broker_of(settings: RabbitMQSettings) -> AsyncIterator[RabbitBroker]:
    broker = RabbitBroker(settings.addresses(), make_context=settings.make_context)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.close()


async def look(settings: RabbitMQSettings) -> str:
    """Why the node cannot be reached; nothing when it can be."""
    return await first_look(settings.addresses(), CONNECT_SECONDS, settings.make_context)


async def test_only_the_right_certificate_for_the_host_and_time_is_believed(
    start: Callable[..., RabbitNode], authority: Authority, stranger: Authority
) -> None:
    node = start(authority.server("localhost"))
    async with broker_of(settings_of(node.tls_url("localhost"), authority)) as broker:
        async with asyncio.timeout(CONNECT_SECONDS):
            await broker.wait_connected()
        assert await broker.depth("letters") == 0
    assert await look(settings_of(node.tls_url("localhost"), authority)) == ""
    assert "not accepted: its authority is unknown" in await look(settings_of(node.tls_url("localhost"), stranger))
    assert "not accepted: IP address mismatch" in await look(settings_of(node.tls_url("127.0.0.1"), authority))
    node.show(authority.server(ends_in=-timedelta(hours=1)))
    node.restart()
    assert "not accepted: certificate has expired" in await look(settings_of(node.tls_url("localhost"), authority))


async def test_a_client_certificate_is_shown_where_the_broker_wants_one(
    start: Callable[..., RabbitNode], authority: Authority, stranger: Authority
) -> None:
    node = start(authority.server(), authority.file)
    url = node.tls_url("localhost")
    assert await look(settings_of(url, authority, authority.client("bobrai"))) == ""
    for shown in (None, stranger.client("bobrai")):
        assert await look(settings_of(url, authority, shown)) != ""


async def test_a_dispatcher_says_why_it_does_not_believe_the_broker_and_takes_a_new_authority(
    start: Callable[..., RabbitNode],
    authority: Authority,
    stranger: Authority,
    database: Database,
    processes: Processes,
    tmp_path: Path,
) -> None:
    node = start(authority.server())
    ca = tmp_path / "ca.crt"
    ca.write_bytes(stranger.file.read_bytes())
    environment = {
        "BOBRAI_DATABASE_URL": database.url,
        "BOBRAI_RABBITMQ_URL": node.tls_url("localhost"),
        "BOBRAI_RABBITMQ_TLS_CA": str(ca),
    }
    dispatcher = processes.start("dispatcher", environment=environment, wait_ready=False)

    def events(name: str) -> list[dict[str, Any]]:
        return [line for line in dispatcher.log_events() if line["event"] == name]

    await eventually(lambda: events("broker.unreachable"))
    assert "not accepted: its authority is unknown" in events("broker.unreachable")[0]["reason"]
    ca.write_bytes(authority.file.read_bytes())
    await eventually(lambda: events("broker.connected"))
    assert len(events("broker.unreachable")) == 1
    dispatcher.wait_ready()


def test_an_authority_goes_with_no_url_that_is_without_tls(authority: Authority) -> None:
    with pytest.raises(ConfigurationError, match="BOBRAI_RABBITMQ_URL: must begin with amqps://"):
        settings_of("amqps://one,amqp://two", authority)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"CA": "/absent"}, "BOBRAI_RABBITMQ_TLS_CA: /absent cannot be read: No such file"),
        ({"CERTIFICATE": "/c"}, "BOBRAI_RABBITMQ_TLS_KEY: must be set too"),
        ({"KEY": "/key", "CERTIFICATE": "/c"}, "BOBRAI_RABBITMQ_TLS_CA: must be set too"),
    ],
)
async def test_wrong_files_end_a_process_with_the_variable(
    processes: Processes, settings: dict[str, str], words: str
) -> None:
    environment = {f"BOBRAI_RABBITMQ_TLS_{name}": value for name, value in settings.items()}
    environment |= {"BOBRAI_DATABASE_URL": "postgresql://127.0.0.1:1/tasks", "BOBRAI_RABBITMQ_URL": "amqps://127.0.0.1"}
    process = processes.start("dispatcher", environment=environment, wait_ready=False)
    assert await process.exited() == 2
    assert re.fullmatch(f"bobrai: {words}.*", process.log_text().strip()), process.log_text()
