"""The client against an API that serves HTTPS and asks for certificates."""

import time
from pathlib import Path

import pytest

from bobrai.client import AsyncClient, Client, ConnectionFailed, errors
from tests.support.certificates import Authority
from tests.support.databases import Database
from tests.support.eventually import eventually_sync
from tests.support.processes import Process, Processes


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def url(announced: Database, processes: Processes, authority: Authority) -> str:
    """Where an API serves HTTPS to those who show a certificate."""
    pair = authority.server()
    settings = {"CERTIFICATE": str(pair.certificate), "KEY": str(pair.key), "CLIENT_CA": str(authority.file)}
    environment = {f"BOBRAI_API_TLS_{name}": value for name, value in settings.items()}
    api = processes.start("api", environment=environment, wait_ready=False)
    eventually_sync(lambda: listens(api), 20, message="the API listens")
    return f"https://127.0.0.1:{api.port}"


def listens(api: Process) -> bool:
    """Whether it has said so."""
    assert api.is_running(), api.log_tail()
    return any(each["event"] == "api.listening" for each in api.log_events())


async def test_a_client_shows_its_certificate_and_believes_an_authority_of_its_own(
    url: str, authority: Authority
) -> None:
    shown = authority.client("ada")
    pair = (str(shown.certificate), str(shown.key))
    async with AsyncClient(url, "", ca=authority.file, certificate=pair) as client:
        assert await (await client.submit("echo", 1, delay=600)).status() == "pending"
    with Client(url, "", ca=authority.file) as client, pytest.raises(errors.ClientCertificateRequired):
        client.submit("echo", 1)


def test_a_server_that_is_not_believed_is_told_at_once(
    url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    with Client(url, "", deadline=30) as client, pytest.raises(ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED"):
        client.submit("echo", 1)
    assert time.monotonic() - began < 20
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with Client(url, "") as client, pytest.raises(errors.ClientCertificateRequired):
        client.submit("echo", 1)
