"""A worker as an operator meets it: a process with signals, exit codes and a health port, and the worked example."""

import json
import re
import signal
import textwrap
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import own_handlers
from tests.support.databases import Database
from tests.support.eventually import eventually
from tests.support.own_handlers import reached, with_handlers
from tests.support.processes import REPOSITORY, Process, Processes
from tests.support.rabbitmq import VirtualHost

HANDLERS = """
import asyncio, threading, time
from bobrai import task

@task("sleep")
async def sleep(payload: float) -> str:
    await asyncio.sleep(payload)
    return "slept"

@task("stuck")
def stuck() -> None:
    threading.Event().wait()

@task("deaf")
async def deaf() -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

@task("blocks")
async def blocks(payload: float) -> None:
    time.sleep(payload)
"""


submit = partial(own_handlers.submit, max_attempts=3)


@pytest.fixture
def service(processes: Processes, database: Database, rabbitmq: VirtualHost, tmp_path: Path) -> Processes:
    """Processes with addresses, and a dispatcher and handlers for their workers."""
    with_handlers(processes, database, rabbitmq, tmp_path / "process_tasks.py", HANDLERS)
    return processes


def events(process: Process, name: str) -> list[dict[str, Any]]:
    return [line for line in process.log_events() if line["event"] == name]


async def test_sigterm_under_load_finishes_and_gives_back_without_counting(
    service: Processes, database: Database
) -> None:
    worker = service.start("worker", "--concurrency", "4", environment={"BOBRAI_WORKER_DRAIN_SECONDS": "3"})
    short = await submit(database, "sleep", 1.0, count=2)
    await reached(database, short, "processing")
    long = await submit(database, "sleep", 600, count=6)
    await eventually(
        lambda: database.fetchval("SELECT count(*) = 4 FROM tasks WHERE status = 'processing'"), message="all slots"
    )
    worker.terminate()
    assert await worker.exited(15) == 0
    await reached(database, short, "done")
    rows = await database.fetch("SELECT status, attempt, errors::text FROM tasks WHERE id = ANY($1)", long)
    assert {(row["status"], row["attempt"], row["errors"]) for row in rows} == {("pending", 0, "[]")}
    assert await database.fetchval("SELECT count(*) FROM workers") == 0


async def test_handlers_that_never_end_do_not_keep_the_process(service: Processes, database: Database) -> None:
    worker = service.start("worker", environment={"BOBRAI_WORKER_DRAIN_SECONDS": "0.5"})
    ids = await submit(database, "stuck") + await submit(database, "deaf")
    await reached(database, ids, "processing")
    worker.terminate()
    assert await worker.exited(10) == 0
    rows = await database.fetch("SELECT status, attempt FROM tasks")
    assert {(row["status"], row["attempt"]) for row in rows} == {("pending", 0)}
    assert "destroyed but it is pending" not in worker.log_text()


async def test_second_signal_ends_the_process_at_once(service: Processes, database: Database) -> None:
    worker = service.start("worker", environment={"BOBRAI_WORKER_DRAIN_SECONDS": "600"})
    ids = await submit(database, "sleep", 600)
    await reached(database, ids, "processing")
    worker.terminate()
    await eventually(lambda: events(worker, "worker.draining"))
    worker.terminate()
    assert await worker.exited(5) == 128 + signal.SIGTERM


async def test_draining_worker_is_live_and_not_ready(service: Processes, database: Database) -> None:
    worker = service.start("worker")
    ids = await submit(database, "sleep", 3.0)
    await reached(database, ids, "processing")
    worker.terminate()
    await eventually(lambda: worker.get("/readyz")[0] == 503, message="not ready")
    status, body = worker.get("/readyz")
    assert (status, json.loads(body)["checks"]["consuming"]) == (503, False)
    assert worker.get("/livez")[0] == 200
    assert await worker.exited(15) == 0
    await reached(database, ids, "done")


async def test_blocked_loop_answers_its_probes_and_is_reported(service: Processes, database: Database) -> None:
    limits = {"BOBRAI_WORKER_BLOCKED_SECONDS": "0.3", "BOBRAI_WORKER_BLOCKED_LIMIT_SECONDS": "1.5"}
    worker = service.start("worker", environment=limits)
    ids = await submit(database, "blocks", 4.0)
    await eventually(lambda: events(worker, "handler.blocked"), message="reported while it blocks")
    assert worker.get("/livez")[0] == 200
    await eventually(lambda: worker.get("/livez")[0] == 503, message="/livez fails at the limit")
    await reached(database, ids, "done")
    await eventually(lambda: worker.get("/livez")[0] == 200, message="live again")
    report = events(worker, "handler.blocked")[0]
    assert "process_tasks.py" in report["stack"]
    assert report["task_id"] == ids[0]
    assert "bobrai_handler_blocked_total 1.0" in worker.get("/metrics")[1].decode()


async def test_worker_that_recycles_itself_drains_and_exits_0(service: Processes, database: Database) -> None:
    worker = service.start("worker", environment={"BOBRAI_WORKER_MAX_TASKS": "10"})
    ids = await submit(database, "echo", "x", count=30)
    assert await worker.exited(20) == 0
    assert events(worker, "worker.recycling")
    service.start("worker")
    await reached(database, ids, "done")


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--handlers", "no_such_module"], {}, "there is no module 'no_such_module'"),
        (["--handlers", "json"], {}, "declares no handler"),
        (["--concurrency", "0"], {}, "BOBRAI_WORKER_CONCURRENCY"),
    ],
)
def test_wrong_start_is_one_line_and_an_exit_code(
    service: Processes, arguments: list[str], environment: dict[str, str], words: str
) -> None:
    worker = service.start("worker", *arguments, environment=environment, wait_ready=False)
    assert worker.wait(20) == 2
    assert words in worker.log_text()
    assert "Traceback" not in worker.log_text()


def test_logs_carry_ids_and_never_payloads(processes: Processes, data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "leaky_tasks.py").write_text(
        textwrap.dedent(
            """
            from bobrai import Retry, task

            @task("leaky", retry=Retry(max_attempts=1))
            def leaky(payload: str) -> None:
                raise ValueError(payload)

            @task("typed")
            def typed(payload: int) -> None: ...
            """
        )
    )
    environment = {"BOBRAI_LOG_FORMAT": "json", "BOBRAI_LOG_LEVEL": "debug"}
    dev = processes.start("dev", "--handlers", "leaky_tasks", environment=environment, wait_ready=False)
    dev.wait_ready(60)
    for type_, secret in (("leaky", "hunter2"), ("echo", "hunter2")):
        final = post_and_wait(dev, {"type": type_, "payload": secret}, "request-7")
        assert final["status"] in {"failed", "done"}
    ended = [line for line in dev.log_events() if line["event"] in {"task.failed", "task.done"}]
    assert {(line["request_id"], line["type"], line["queue"], line["attempt"]) for line in ended} == {
        ("request-7", "leaky", "default", 1),
        ("request-7", "echo", "default", 1),
    }
    assert "hunter2" not in dev.log_text()


def post_and_wait(process: Process, body: dict[str, Any], request_id: str = "") -> dict[str, Any]:
    """Submit over HTTP and return the task once it is final."""
    headers = {"Content-Type": "application/json", "X-Request-ID": request_id or "example"}
    request = urllib.request.Request(process.url + "/api/v1/tasks", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        task_id = json.load(response)["task_id"]
    with urllib.request.urlopen(f"{process.url}/api/v1/tasks/{task_id}?wait=30", timeout=40) as response:
        found: dict[str, Any] = json.load(response)
    return found


def test_worked_example_does_what_its_page_says(processes: Processes, data_folder: Path, tmp_path: Path) -> None:
    examples = REPOSITORY / "docs" / "examples"
    (tmp_path / "newsletter.py").write_text((examples / "newsletter.py").read_text())
    dev = processes.start("dev", "--handlers", "newsletter", wait_ready=False)
    dev.wait_ready(60)
    letter = {"to": "ada@example.org", "subject": "Hi"}
    sent = post_and_wait(dev, {"type": "letter", "payload": letter})
    assert (sent["status"], sent["result"]["to"], sent["result"]["attempt"]) == ("done", "ada@example.org", 1)
    busy = post_and_wait(dev, {"type": "letter", "payload": {**letter, "to": "x@busy.example"}})
    assert (busy["status"], busy["attempt"], busy["errors"][0]["reason"]) == ("done", 2, "retry_later")
    nobody = post_and_wait(dev, {"type": "letter", "payload": {**letter, "to": "x@nowhere.example"}})
    assert (nobody["status"], nobody["attempt"]) == ("failed", 1)
    assert post_and_wait(dev, {"type": "count-primes", "payload": 1000})["result"] == 168
    signed_up = post_and_wait(dev, {"type": "sign-up", "payload": letter})
    assert signed_up["result"] == "ada@example.org is subscribed"
    with urllib.request.urlopen(f"{dev.url}/api/v1/tasks?parent_id={signed_up['id']}", timeout=40) as response:
        [welcome] = json.load(response)["tasks"]
    assert (welcome["type"], welcome["payload"]["subject"]) == ("letter", "Welcome")
    assert post_and_wait(dev, {"type": "hello", "payload": None})["result"] == "Hello!"
    with pytest.raises(urllib.error.HTTPError, match="422"):
        post_and_wait(dev, {"type": "letter", "payload": {"to": "nobody", "subject": ""}})
    dev.send(signal.SIGINT)
    assert dev.wait(30) == 0


def test_every_type_on_the_page_is_in_the_example() -> None:
    page = (REPOSITORY / "docs" / "handlers.md").read_text()
    example = (REPOSITORY / "docs" / "examples" / "newsletter.py").read_text()
    declared = set(re.findall(r'@task\("([^"]+)"', example))
    assert set(re.findall(r'"type": "([^"]+)"', page)) <= declared
