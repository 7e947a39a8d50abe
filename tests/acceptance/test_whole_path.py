"""What a stranger does first: one command, one curl line, Ctrl-C; nothing but HTTP and a terminal."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.eventually import eventually_sync
from tests.support.processes import Process, Processes

HOST = "127.0.0.1"
# a first start makes a database cluster
FIRST_START_SECONDS = 60.0
HANDLERS = """
from bobrai import Context, Retry, task

@task("greet", timeout=10, retry=Retry(max_attempts=5))
async def greet(ctx: Context, payload: str) -> str:
    return f"Hello, {payload}!"
"""


def start_dev(processes: Processes, *arguments: str, **options: Any) -> Process:
    return processes.start("dev", *arguments, wait_ready=False, **options).wait_ready(FIRST_START_SECONDS)


def curl(url: str, *, post: object = None) -> tuple[int, dict[str, Any]]:
    """What `curl` of the README does; returns status and body."""
    request = urllib.request.Request(url)
    if post is not None:
        request.data = json.dumps(post).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def stop(process: Process) -> int:
    """Ctrl-C, and the exit code."""
    process.send(signal.SIGINT)
    return process.wait(30)


def test_readme_example_works_and_survives_a_restart(processes: Processes, data_folder: Path) -> None:
    service = start_dev(processes)
    assert curl(f"{service.url}/tasks", post={"payload": "test task"}) == (201, {"task_id": 1})
    status, task = curl(f"{service.url}/tasks/1?wait=20")
    assert (status, task["status"], task["result"]) == (200, "done", "processed: test task (1sec)")
    assert f"bobrAI listens on http://{HOST}:{service.port}" in service.log_text()
    assert "It is open: whoever reaches it needs no key" in service.log_text()
    assert "curl -X POST" in service.log_text()
    assert stop(service) == 0
    again = start_dev(processes)
    assert curl(f"{again.url}/api/v1/tasks/1") == (200, task)
    assert curl(f"{again.url}/tasks", post={"payload": "another"}) == (201, {"task_id": 2})
    assert curl(f"{again.url}/tasks/2?wait=20")[1]["result"] == "processed: another (1sec)"
    assert stop(again) == 0
    assert curl_is_refused(again)


def curl_is_refused(process: Process) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, process.port or 0)) != 0


def test_ctrl_c_lets_running_tasks_finish(processes: Processes, data_folder: Path) -> None:
    service = start_dev(processes)
    _, answer = curl(f"{service.url}/api/v1/tasks/batch", post={"tasks": [{"payload": "x"}] * 10})
    ids = answer["task_ids"]
    eventually_sync(lambda: curl(f"{service.url}/tasks/{ids[-1]}")[1]["status"] == "processing", message="they run")
    assert stop(service) == 0
    again = start_dev(processes)
    tasks = [curl(f"{again.url}/tasks/{task_id}")[1] for task_id in ids]
    assert [(task["status"], task["attempt"]) for task in tasks] == [("done", 1)] * 10
    assert stop(again) == 0


def test_tasks_that_still_waited_run_after_the_restart(processes: Processes, data_folder: Path) -> None:
    service = start_dev(processes)
    _, answer = curl(f"{service.url}/api/v1/tasks/batch", post={"tasks": [{"payload": "x"}] * 150})
    eventually_sync(lambda: curl(f"{service.url}/tasks/1")[1]["status"] == "processing", message="they run")
    assert stop(service) == 0
    again = start_dev(processes)
    tasks = [curl(f"{again.url}/tasks/{task_id}?wait=20")[1] for task_id in answer["task_ids"]]
    assert {(task["status"], task["attempt"]) for task in tasks} == {("done", 1)}
    curl(f"{again.url}/tasks", post={"payload": "x"})
    eventually_sync(lambda: curl(f"{again.url}/tasks/151")[1]["status"] == "processing", message="it runs")
    again.send(signal.SIGINT)
    eventually_sync(lambda: "process.stopping" in again.log_text(), message="it drains")
    assert stop(again) == 128 + signal.SIGINT
    postmaster = data_folder / "postgresql" / "postmaster.pid"
    eventually_sync(lambda: not postmaster.exists(), message="the database has ended as well")


def test_killed_service_goes_on_where_it_was(processes: Processes, data_folder: Path) -> None:
    processes.environment |= {"BOBRAI_WORKER_LEASE_SECONDS": "2", "BOBRAI_WORKER_HEARTBEAT_SECONDS": "0.5"}
    service = start_dev(processes)
    _, answer = curl(f"{service.url}/api/v1/tasks/batch", post={"tasks": [{"payload": "x"}] * 100})
    eventually_sync(lambda: curl(f"{service.url}/tasks/1")[1]["status"] == "processing", message="they run")
    service.kill()
    again = start_dev(processes)
    tasks = [curl(f"{again.url}/tasks/{task_id}?wait=20")[1] for task_id in answer["task_ids"]]
    assert {task["status"] for task in tasks} == {"done"}
    assert {task["attempt"] for task in tasks} == {1, 2}
    assert stop(again) == 0
    assert not (data_folder / "postgresql" / "postmaster.pid").exists()  # it was the killed one's


def test_service_that_is_told_to_end_while_its_database_starts_leaves_none_behind(
    processes: Processes, data_folder: Path
) -> None:
    end_while_the_database_starts(processes, data_folder)  # while it is made
    assert stop(start_dev(processes)) == 0
    end_while_the_database_starts(processes, data_folder)
    assert stop(start_dev(processes)) == 0


def end_while_the_database_starts(processes: Processes, data_folder: Path) -> None:
    postmaster = data_folder / "postgresql" / "postmaster.pid"
    service = processes.start("dev", wait_ready=False)
    eventually_sync(lambda: postmaster.exists() and postmaster.read_text(), message="the database starts")
    server = abs(int(postmaster.read_text().split()[0]))
    service.send(signal.SIGINT)
    service.wait()
    eventually_sync(lambda: not psutil.pid_exists(server), message="the database has ended")


def test_own_handlers_run_as_the_readme_says(processes: Processes, data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(HANDLERS)
    service = start_dev(processes, "--handlers", "my_tasks")
    status, answer = curl(f"{service.url}/api/v1/tasks", post={"type": "greet", "payload": "world"})
    assert status == 201
    task = curl(f"{service.url}/api/v1/tasks/{answer['task_id']}?wait=20")[1]
    assert (task["status"], task["result"]) == ("done", "Hello, world!")
    assert curl(f"{service.url}/api/v1/tasks", post={"type": "greet", "payload": 7})[0] == 422
    assert stop(service) == 0


@pytest.mark.parametrize("wished", [None, "mail"])
def test_queues_that_handlers_declare_are_consumed_besides_those_that_are_set(
    processes: Processes, data_folder: Path, tmp_path: Path, wished: str | None
) -> None:
    (tmp_path / "my_tasks.py").write_text(HANDLERS.replace('"greet"', '"greet", queue="media"'))
    set_queues = {} if wished is None else {"BOBRAI_WORKER_QUEUES": wished}
    service = start_dev(processes, "--handlers", "my_tasks", environment=set_queues)
    submitted: list[dict[str, Any]] = [
        {"type": "greet", "payload": "world"},
        {"type": "echo", "payload": "x"},
        {"type": "echo", "payload": "x", "queue": wished or "default"},
    ]
    for body in submitted:
        task_id = curl(f"{service.url}/api/v1/tasks", post=body)[1]["task_id"]
        assert curl(f"{service.url}/api/v1/tasks/{task_id}?wait=20")[1]["status"] == "done", body
    assert stop(service) == 0


def test_taken_port_is_one_clear_line(processes: Processes, data_folder: Path, free_port: Callable[[], int]) -> None:
    with socket.create_server((HOST, free_port())) as listener:
        port = listener.getsockname()[1]
        process = processes.start("dev", port=port, wait_ready=False)
        assert process.wait() == 2
    said(process, f"{HOST}:{port}", "BOBRAI_API_BIND")


@pytest.mark.parametrize("command", ["dev", "api", "dispatcher", "worker", "migrate"])
def test_wrong_url_is_one_clear_line(processes: Processes, data_folder: Path, command: str) -> None:
    processes.environment |= {
        "BOBRAI_DATABASE_URL": "mysql://user:secret@localhost/bobrai",
        "BOBRAI_RABBITMQ_URL": "amqp://localhost/",
    }
    process = processes.start(command, wait_ready=False)
    assert process.wait() == 2
    said(process, "BOBRAI_DATABASE_URL", "postgresql://")
    assert "secret" not in process.log_text()


@pytest.mark.parametrize("command", ["api", "dispatcher", "worker", "migrate"])
def test_missing_url_is_one_clear_line(processes: Processes, command: str) -> None:
    process = processes.start(command, wait_ready=False)
    assert process.wait() == 2
    said(process, "BOBRAI_DATABASE_URL is not set", "bobrai dev")


def test_unusable_data_folder_is_one_clear_line(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    processes.environment["BOBRAI_DATA_DIR"] = str(tmp_path / "file" / "data")
    process = processes.start("dev", wait_ready=False)
    assert process.wait() == 2
    said(process, str(tmp_path / "file"))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 16 MiB."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        # without the right to mount, the folder of a full device stands in for it
        pytest.fail("cannot mount a small file system: run this as root, or deselect it by name")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_one_clear_line(processes: Processes, full_disk: Path) -> None:
    processes.environment["BOBRAI_DATA_DIR"] = str(full_disk / "data")
    process = processes.start("dev", wait_ready=False)
    assert process.wait() == 2
    said(process, str(full_disk), "free")


def test_handlers_that_cannot_be_imported_are_one_clear_line(processes: Processes, data_folder: Path) -> None:
    process = processes.start("dev", "--handlers", "there_is_no_such_module", wait_ready=False)
    assert process.wait() == 2
    said(process, "there_is_no_such_module")


def said(process: Process, *parts: str) -> None:
    """It printed exactly one line, which has every part."""
    lines = process.log_text().strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("bobrai: ")
    for part in parts:
        assert part in lines[0]


def test_help_names_every_command(processes: Processes) -> None:
    process = processes.run([sys.executable, "-m", "bobrai", "--help"], name="help")
    assert process.wait() == 0
    for command in ("api", "dispatcher", "worker", "migrate", "dev", "rabbitmq-definitions"):
        assert command in process.log_text()
