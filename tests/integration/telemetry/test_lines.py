"""What the whole service prints under load: fields that can be relied on, and never a secret."""

import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from bobrai.telemetry.events import EVENTS
from tests.integration.telemetry.conftest import Service
from tests.support.databases import Database
from tests.support.eventually import eventually_sync
from tests.support.rabbitmq import VirtualHost

SECRET = "s3cr3t-of-the-client"
ATTEMPT_FIELDS = {"task_id", "attempt", "type", "queue", "request_id"}
OWN = {"by logging", "by structlog", "by ctx"}


def secrets(*urls: str) -> list[str]:
    """The passwords in URLs."""
    return [password for url in urls if (password := urlsplit(url).password)]


def under_load(service: Service) -> dict[int, str]:
    """Submit tasks of every fate, wait for them, and return their request ids."""
    kinds = [
        ("say", {"text": SECRET}),
        ("threaded", {"text": SECRET}),
        ("unsteady", {"until": 2, "text": SECRET}),
        ("hopeless", {"text": SECRET}),
        ("careless", {"text": SECRET}),
    ]
    requests: dict[int, str] = {}
    for number in range(60):
        type_, payload = kinds[number % len(kinds)]
        headers = {"X-Request-ID": f"req-{number}", "Idempotency-Key": f"{SECRET}-{number}", "Authorization": SECRET}
        requests[service.submit(type_, payload, headers=headers)] = f"req-{number}"
    refused = [
        {"type": "no-such-type", "payload": SECRET},
        {"type": "say", "payload": SECRET},
        {"type": "say", "payload": {}, "priority": SECRET},
        {"type": "say", "payload": {}, SECRET: 1},
    ]
    for body in refused:
        assert service.call("POST", "/api/v1/tasks", body)[0] in {400, 422}
    service.call("GET", f"/api/v1/tasks?cursor={SECRET}")
    service.call("GET", f"/{SECRET}")
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(service.final, requests))
    return requests


def test_no_secret_is_in_any_line(service: Service, database: Database, rabbitmq: VirtualHost) -> None:
    """At the finest level, under load, with servers going away, and from start to end."""
    service.processes.environment["BOBRAI_LOG_LEVEL"] = "debug"
    wrong = urlsplit(rabbitmq.url)
    unreachable = urlunsplit(wrong._replace(netloc=f"someone:{SECRET}@127.0.0.1:1"))
    service.processes.environment["BOBRAI_RABBITMQ_URL"] = f"{rabbitmq.url},{unreachable}"
    service.start()
    under_load(service)
    service.processes.start(
        "dispatcher",
        environment={"BOBRAI_DATABASE_URL": f"postgresql://someone:{SECRET}@127.0.0.1:1/x"},
        wait_ready=False,
    )
    strange = service.processes.all[-1]
    eventually_sync(lambda: "loop.failed" in strange.log_text(), message="the database is not found")
    for process in service.processes.all:
        process.terminate()
    for process in service.processes.all:
        process.wait()
    passwords = [*secrets(database.url, rabbitmq.url), SECRET]
    assert len(passwords) >= 2
    for process in service.processes.all:
        printed = process.log_text()
        assert len(printed) > 500
        for password in passwords:
            # A password that is also the user's name is no secret of its own: only after a colon.
            leak = re.search(rf":{re.escape(password)}@", printed) if password != SECRET else SECRET in printed
            assert not leak, f"{process.name}: {printed[max(printed.find(password) - 200, 0) :][:400]}"


def test_every_line_is_an_event_with_its_fields(service: Service) -> None:
    service.processes.environment["BOBRAI_LOG_LEVEL"] = "debug"
    service.start()
    requests = under_load(service)
    for process in service.all():
        assert all(line.startswith("{") for line in process.log_text().splitlines()), process.name
    lines = service.lines()
    assert {line["event"] for line in lines} - set(EVENTS) == OWN
    for line in lines:
        assert {"event", "level", "at", "process", "module"} <= set(line) or line["event"] == "by structlog"
    attempts = [line for line in lines if line["event"].startswith("task.") or line["event"] in OWN]
    assert len(attempts) > 150
    for line in attempts:
        assert set(line) >= ATTEMPT_FIELDS, line
        assert line["request_id"] == requests[line["task_id"]]
    answered = {line.get("task_id"): line["request_id"] for line in lines if line.get("status") == 201}
    assert answered == requests
    failed = [line for line in attempts if line["event"] in {"task.failed", "task.retried"}]
    assert {(line["error_type"], line["reason"]) for line in failed} == {
        ("ValueError", "error"),
        ("bobrai.domain.errors.PermanentFailure", "permanent"),
    }
    strays = [line for line in lines if line["event"] == "process.stray_error"]
    assert {(line["runs_in"], line["error_type"]) for line in strays} == {
        ("event loop", "ValueError"),
        ("thread", "ValueError"),
    }
    assert all("telemetry_handlers.py" in line["stack"] for line in strays)


def test_elastic_gets_its_own_names(service: Service) -> None:
    service.start(BOBRAI_LOG_FORMAT="ecs")
    requests = under_load(service)
    lines: list[dict[str, Any]] = [
        json.loads(line) for process in service.all() for line in process.log_text().splitlines()
    ]
    for line in lines:
        assert {"@timestamp", "log.level", "message", "ecs.version", "service.name", "service.version"} <= set(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line["@timestamp"])
    own = [line for line in lines if line["message"] in OWN]
    assert {line["http.request.id"] for line in own} <= set(requests.values())
    assert all(line["log.logger"] == "my.handlers" for line in own if line["message"] == "by logging")
    (post, *_) = [line for line in lines if line.get("http.response.status_code") == 201]
    assert (post["http.request.method"], type(post["event.duration"])) == ("POST", int)
    (failed, *_) = [line for line in lines if line["message"] == "task.failed"]
    assert failed["error.type"] == "bobrai.domain.errors.PermanentFailure"


@pytest.mark.parametrize("way", ["signal", "command"])
def test_the_level_changes_without_a_restart(service: Service, way: str) -> None:
    service.start(BOBRAI_LOG_LEVEL="error")
    worker = service.workers[0]

    def tell(level: str, number: signal.Signals) -> None:
        if way == "signal":
            worker.send(number)
        else:
            command = service.processes.start("log-level", level, "--pid", str(worker.pid))
            assert command.wait() == 0

    def done(task_id: int) -> bool:
        return any(line["event"] == "task.done" and line["task_id"] == task_id for line in worker.log_events())

    first = service.submit("say")
    service.final(first)
    eventually_sync(
        lambda: service.metric("bobrai_worker_outcomes_unwritten", worker) == 0, message="its end would be told by now"
    )
    assert worker.log_events() == []
    tell("debug", signal.SIGUSR1)
    eventually_sync(lambda: worker.log_events(), message="the change is told")
    second = service.submit("say")
    eventually_sync(lambda: done(second), message="what happens is told")
    assert not done(first)
    tell("configured", signal.SIGUSR2)
    eventually_sync(
        lambda: (
            [line["now"] for line in worker.log_events() if line["event"] == "log.level_changed"] == ["debug", "error"]
        ),
        message="the change back is told",
    )
    before = worker.log_text()
    service.final(service.submit("say"))
    assert worker.log_text() == before
