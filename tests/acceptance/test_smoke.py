"""`bobrai smoke`, against a real service and against things that are not one."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_whole_path import curl, start_dev
from tests.support.databases import Database
from tests.support.processes import Process, Processes


def smoke(processes: Processes, *arguments: str) -> tuple[int, list[str], Process]:
    """Run it to its end; its exit code and what it said."""
    process = processes.start("smoke", *arguments)
    return process.wait(60), process.log_text().splitlines(), process


def test_a_working_service_passes_and_has_run_both_tasks(processes: Processes, data_folder: Path) -> None:
    service = start_dev(processes)
    code, lines, _ = smoke(processes, service.url + "/")
    assert code == 0, lines
    assert lines[0] == f"testing {service.url} within 60 s"
    assert lines[1:3] == ["echo: accepted as task 1", "demo: accepted as task 2"]
    assert lines[3].startswith("echo: task 1 done after ")
    assert lines[4].startswith("demo: task 2 done after ")
    assert lines[5].startswith("passed in ")
    for task_id in (1, 2):
        assert curl(f"{service.url}/api/v1/tasks/{task_id}")[1]["status"] == "done"


def test_tasks_that_nobody_runs_fail_with_the_likely_cause(processes: Processes, database: Database) -> None:
    processes.environment["BOBRAI_DATABASE_URL"] = database.url
    migrate = processes.start("migrate")
    assert migrate.wait() == 0
    api = processes.start("api")
    code, lines, _ = smoke(processes, api.url, "--timeout", "2")
    assert code == 1
    assert lines[-1].startswith("Error: echo: task 1 is still pending after 2 s; is a dispatcher running")


def test_an_address_where_nothing_listens_is_said_and_waited_for(
    processes: Processes, free_port: Callable[[], int]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code, lines, _ = smoke(processes, url, "--timeout", "1")
    assert code == 1
    assert len(lines) == 3  # one line for waiting, however often it tried
    assert "waiting" in lines[1]
    assert "Connection refused" in lines[2]
    assert "within 1 s" in lines[2]


def test_what_is_no_url_is_refused_at_once(processes: Processes) -> None:
    code, lines, _ = smoke(processes, "bobrai-api:8001")
    assert code == 1
    assert lines == ["Error: 'bobrai-api:8001' is not the URL of an API; write it as http://HOST:PORT"]


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines"])
def test_a_credential_that_no_header_can_hold_is_refused_without_showing_it(processes: Processes, key: str) -> None:
    processes.environment["BOBRAI_API_KEY"] = key
    code, lines, _ = smoke(processes, "http://127.0.0.1:1", "--timeout", "1")
    assert (code, lines) == (2, ["bobrai: the value of BOBRAI_API_KEY must consist of printable ASCII characters"])


@pytest.fixture
def impostor() -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """A server that answers what the test puts into the table by method, and its URL."""
    answers: dict[str, tuple[int, bytes]] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = answers[self.command]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - the names that http.server calls

        def log_message(self, *arguments: object) -> None:
            """Nothing is printed."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    thread.join()
    server.server_close()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("post", "get", "said"),
    [
        ((200, b"<html>"), (200, b""), "the answer is not JSON"),
        ((200, as_json({})), (200, b""), "the answer has no task_id"),
        ((404, b"no such page"), (200, b""), "HTTP 404: no such page"),
        ((201, as_json({"task_id": 7})), (404, b"gone"), "HTTP 404: gone"),
        ((201, as_json({"task_id": 7})), (200, as_json([])), "the answer is not an object"),
        (
            (201, as_json({"task_id": 7})),
            (200, as_json({"status": "failed", "errors": [{"message": "broken"}]})),
            'task 7 ended failed: [{"message": "broken"}]',
        ),
        (
            (201, as_json({"task_id": 7})),
            (200, as_json({"status": "done", "result": "wrong"})),
            "task 7 has the result wrong, not ",
        ),
        ((503, b"not yet"), (200, b""), "no good answer within 2 s; the last one: HTTP 503: not yet"),
    ],
)
def test_whatever_is_wrong_is_named(
    processes: Processes,
    impostor: tuple[str, dict[str, tuple[int, bytes]]],
    post: tuple[int, bytes],
    get: tuple[int, bytes],
    said: str,
) -> None:
    url, answers = impostor
    answers |= {"POST": post, "GET": get}
    code, lines, _ = smoke(processes, url, "--timeout", "2")
    assert code == 1
    assert said in lines[-1]
