"""`bobrai external-metrics` as a process beside a real dispatcher: figures that live, go stale, and come back."""

import json
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from bobrai.store.pool import Database
from tests.integration.external_metrics.certificates import Authority, Pair, client_context
from tests.integration.external_metrics.cluster import Cluster
from tests.integration.external_metrics.conftest import BACKLOG, SPEAKER, Files
from tests.integration.store.builders import submitted
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually
from tests.support.processes import Process, Processes

STALE_SECONDS = 3.0


@pytest.fixture
def bind(free_port: Callable[[], int]) -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def ask(bind: str, server_authority: Authority, proxy_pair: Pair) -> Callable[[], tuple[int, Any]]:
    """Ask for the backlog as the API server does; status and body."""
    context = client_context(server_authority, proxy_pair)

    def once() -> tuple[int, Any]:
        request = urllib.request.Request(f"https://{bind}{BACKLOG}", headers=SPEAKER)
        try:
            with urllib.request.urlopen(request, timeout=5, context=context) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    return once


@pytest.fixture
def environment(
    processes: Processes, database: OwnDatabase, cluster: Cluster, files: Files, bind: str
) -> dict[str, str]:
    processes.environment.update(
        {
            "BOBRAI_DATABASE_URL": database.url,
            "BOBRAI_LOG_FORMAT": "json",
            "BOBRAI_RABBITMQ_URL": "amqp://127.0.0.1:1/",
            "BOBRAI_EXTERNAL_METRICS_BIND": bind,
            "BOBRAI_EXTERNAL_METRICS_CERTIFICATE": str(files.certificate),
            "BOBRAI_EXTERNAL_METRICS_KEY": str(files.key),
            "BOBRAI_EXTERNAL_METRICS_KUBERNETES_URL": cluster.url,
            "BOBRAI_EXTERNAL_METRICS_SERVICE_ACCOUNT_DIR": str(cluster.account),
            "BOBRAI_EXTERNAL_METRICS_STALE_SECONDS": str(STALE_SECONDS),
        }
    )
    return processes.environment


def backlog(answer: tuple[int, Any]) -> int | None:
    """The value, None when it is unknown."""
    status, body = answer
    if status == 503:
        assert body["reason"] == "ServiceUnavailable"
        return None
    assert status == 200, body
    (item,) = body["items"]
    return int(item["value"])


async def test_a_dead_dispatcher_makes_the_backlog_unknown_until_another_one_measures(
    processes: Processes, environment: dict[str, str], store: Database, ask: Callable[[], tuple[int, Any]]
) -> None:
    service = processes.start("external-metrics")
    assert backlog(ask()) is None  # nobody has measured yet
    dispatcher = processes.start("dispatcher", wait_ready=False)
    await eventually(lambda: backlog(ask()) == 0)
    await submitted(store, 3)
    await eventually(lambda: backlog(ask()) == 3)
    dispatcher.kill()
    await eventually(lambda: backlog(ask()) is None, STALE_SECONDS + 5)
    second = processes.start("dispatcher", wait_ready=False)
    await eventually(lambda: backlog(ask()) == 3)
    for process in (service, second):
        process.terminate()
    assert await service.exited() == 0
    assert await second.exited() == 0


def ended(process: Process) -> str:
    assert process.wait() == 2
    return process.log_text()


@pytest.mark.parametrize("variable", ["CERTIFICATE", "KEY"])
def test_a_missing_file_is_said_at_the_start(
    processes: Processes, environment: dict[str, str], tmp_path: Path, variable: str
) -> None:
    environment[f"BOBRAI_EXTERNAL_METRICS_{variable}"] = str(tmp_path / "nowhere")
    said = ended(processes.start("external-metrics", wait_ready=False))
    assert f"BOBRAI_EXTERNAL_METRICS_{variable}" in said
    assert "Traceback" not in said


def test_a_namespace_must_be_known(processes: Processes, environment: dict[str, str], cluster: Cluster) -> None:
    (cluster.account / "namespace").unlink()
    said = ended(processes.start("external-metrics", wait_ready=False))
    assert "BOBRAI_EXTERNAL_METRICS_NAMESPACE" in said
    environment["BOBRAI_EXTERNAL_METRICS_NAMESPACE"] = "shop"
    processes.start("external-metrics")


def test_a_silent_client_does_not_hold_up_the_end(
    processes: Processes, environment: dict[str, str], bind: str, server_authority: Authority, proxy_pair: Pair
) -> None:
    """Half of the goodbye of TLS is the client's, and this one says nothing."""
    service = processes.start("external-metrics")
    host, _, port = bind.rpartition(":")
    context = client_context(server_authority, proxy_pair)
    with socket.create_connection((host, int(port))) as line, context.wrap_socket(line, server_hostname="localhost"):
        service.terminate()
        assert service.wait(8) == 0
