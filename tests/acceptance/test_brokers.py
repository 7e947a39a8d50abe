"""What a developer and an operator see of a RabbitMQ that is away or refuses them."""

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.support.databases import Database
from tests.support.eventually import eventually_sync
from tests.support.processes import Process, Processes
from tests.support.rabbitmq import VirtualHost

PASSWORD = "tr0ub4dor"


@pytest.fixture
def set_password(rabbitmq: VirtualHost) -> Iterator[Callable[[str], None]]:
    """Makes, or changes, the user `me` of the test's virtual host."""
    user = f"/users/{quote(f'me-{rabbitmq.name}', safe='')}"

    def set_(password: str) -> None:
        rabbitmq.management.call("PUT", user, {"password": password, "tags": ""})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        rabbitmq.management.call("PUT", f"/permissions/{quote(rabbitmq.name, safe='')}{user[6:]}", everything)

    yield set_
    rabbitmq.management.call("DELETE", user)


def url_of(rabbitmq: VirtualHost, *, user: str = "", virtual_host: str = "") -> str:
    parts = urlsplit(rabbitmq.url)
    who = f"{user or parts.username}:{PASSWORD}"
    return f"amqp://{who}@{parts.hostname}:{parts.port}{virtual_host or parts.path}"


def dev(processes: Processes, database: Database, url: str) -> Process:
    given = {"BOBRAI_DATABASE_URL": database.url, "BOBRAI_RABBITMQ_URL": url}
    return processes.start("dev", environment=given, wait_ready=False)


@pytest.mark.parametrize("what", ["user", "virtual host", "scheme"])
def test_dev_ends_with_one_line_where_rabbitmq_can_never_work(
    processes: Processes, database: Database, rabbitmq: VirtualHost, set_password: Callable[[str], None], what: str
) -> None:
    set_password(PASSWORD)
    own = f"me-{rabbitmq.name}"
    url, words = {
        "user": (url_of(rabbitmq), "user 'guest' or its password is wrong"),
        "virtual host": (url_of(rabbitmq, user=own, virtual_host="/nowhere"), "virtual host 'nowhere' does not exist"),
        "scheme": (url_of(rabbitmq).replace("amqp:", "http:"), "must start with amqp://"),
    }[what]
    process = dev(processes, database, url)
    assert process.wait(20) == 2
    (line,) = process.log_text().splitlines()
    assert line.startswith("bobrai: ")
    assert "BOBRAI_RABBITMQ_URL" in line
    assert words in line
    assert PASSWORD not in line


def test_dev_says_below_its_address_that_it_waits_for_rabbitmq(
    processes: Processes, database: Database, free_port: Callable[[], int]
) -> None:
    node = f"127.0.0.1:{free_port()}"
    process = dev(processes, database, f"amqp://me:{PASSWORD}@{node}/")
    eventually_sync(lambda: "then: curl" in process.log_text(), 30, message="it welcomes")
    welcome = process.log_text().partition("bobrAI listens on")[2].splitlines()
    assert welcome[1].startswith(f"It waits for RabbitMQ at {node} (")
    assert PASSWORD not in process.log_text()
    process.send(signal.SIGINT)
    assert process.wait() == 0


def test_dev_says_nothing_of_a_rabbitmq_that_is_there(
    processes: Processes, database: Database, rabbitmq: VirtualHost
) -> None:
    process = dev(processes, database, rabbitmq.url).wait_ready()
    assert "It waits for" not in process.log_text()
    process.send(signal.SIGINT)
    assert process.wait() == 0


@pytest.mark.parametrize("command", ["worker", "dispatcher"])
def test_other_processes_say_once_that_they_are_refused_and_begin_when_they_are_not(
    processes: Processes, database: Database, rabbitmq: VirtualHost, set_password: Callable[[str], None], command: str
) -> None:
    """Their password may change beneath them, as when a Secret is rotated."""
    set_password("another")
    url = url_of(rabbitmq, user=f"me-{rabbitmq.name}")
    given = {"BOBRAI_DATABASE_URL": database.url, "BOBRAI_RABBITMQ_URL": url}
    process = processes.start(command, environment=given, wait_ready=False)

    def refusals() -> list[dict[str, Any]]:
        return [line for line in process.log_events() if line["event"] == "broker.unreachable"]

    eventually_sync(refusals, 20, message="it says that it is refused")
    eventually_sync(lambda: process.get("/readyz")[0] == 503, message="it is not ready")
    assert process.is_running()
    set_password(PASSWORD)
    process.wait_ready()
    (refused,) = refusals()
    assert "password is wrong" in refused["reason"]
    assert PASSWORD not in json.dumps(process.log_events())
