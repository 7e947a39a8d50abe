"""What somebody at a terminal sees of `bobrai dev` and `make run`: Ctrl-C, a window that closes, a process killed."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.eventually import eventually_sync
from tests.support.processes import PYTHONPATH, REPOSITORY, Processes
from tests.support.reaper import is_alive
from tests.support.run_folder import RunFolder
from tests.support.terminal import Terminal

CTRL_C = "\x03"
PROMPT = "PROMPT>"
SLOW = """
import time
from bobrai import task

@task("slow")
def slow(payload: float) -> None:
    time.sleep(payload)
"""
Shell = Callable[[str], Terminal]
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def port(free_port: Callable[[], int]) -> int:
    return free_port()


@pytest.fixture
def shell(run_folder: RunFolder, data_folder: Path, tmp_path: Path, port: int) -> Iterator[Shell]:
    """An interactive shell on a terminal, in which a command has been typed."""
    environment = {
        "BOBRAI_API_BIND": f"127.0.0.1:{port}",
        "BOBRAI_DATA_DIR": str(data_folder),
        "PYTHONPATH": f"{PYTHONPATH}{os.pathsep}{tmp_path}",
        "PS1": f"{PROMPT} ",
    }
    opened: list[Terminal] = []

    def open_(command: str) -> Terminal:
        terminal = Terminal(run_folder, ["bash", "--norc", "-i"], folder=tmp_path, environment=environment)
        opened.append(terminal)
        terminal.wait_for(PROMPT)
        terminal.type(f"{command}\n")
        terminal.wait_for("then: curl", 60)
        return terminal

    yield open_
    for terminal in opened:
        terminal.close()


@pytest.fixture
def make_run(tmp_path: Path) -> str:
    """`make run` of the repository, with this Python in place of an environment that it would install."""
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    program = environment / "bin" / "bobrai"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m bobrai "$@"\n')
    program.chmod(0o755)
    (environment / "bin" / "python").symlink_to(sys.executable)
    (environment / ".run").touch()
    return f"make --no-print-directory -C {REPOSITORY} run VENV={environment}"


def test_make_run_says_that_its_port_is_taken_before_it_installs_anything(
    run_folder: RunFolder, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", run_folder.free_port())) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        given = {**os.environ, "BOBRAI_API_BIND": address}
        command = ["make", "-C", str(REPOSITORY), "run", f"VENV={tmp_path / 'venv'}", f"PYTHON={sys.executable}"]
        done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert f"cannot listen on {address}" in done.stderr
    assert "BOBRAI_API_BIND=" in done.stderr
    assert not (tmp_path / "venv").exists()


def postmaster(data_folder: Path) -> psutil.Process:
    return psutil.Process(int((data_folder / "postgresql" / "postmaster.pid").read_text().splitlines()[0]))


def database_has_ended(data_folder: Path) -> bool:
    return not (data_folder / "postgresql" / "postmaster.pid").exists()


def submit(port: int, body: object) -> None:
    headers = {"Content-Type": "application/json"}
    url = f"http://127.0.0.1:{port}/api/v1/tasks"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=10) as answer:
        task_id = json.load(answer)["task_id"]

    def runs() -> bool:
        with urllib.request.urlopen(f"{url}/{task_id}", timeout=10) as answer:
            return bool(json.load(answer)["status"] == "processing")

    eventually_sync(runs, message="the task runs")


def test_ctrl_c_ends_dev_with_0(shell: Shell, data_folder: Path) -> None:
    terminal = shell(f"{sys.executable} -m bobrai dev; echo ended with $?")
    terminal.type(CTRL_C)
    terminal.wait_for("ended with 0")
    assert database_has_ended(data_folder)


def test_ctrl_c_ends_make_run_without_a_word_of_make(shell: Shell, make_run: str, data_folder: Path) -> None:
    terminal = shell(make_run)
    terminal.type(CTRL_C)
    eventually_sync(lambda: terminal.shown.rstrip().endswith(PROMPT), 30, message="the prompt is back")
    ended = terminal.shown.partition("then: curl")[2]
    assert "api.stopped" in ended
    assert "make:" not in ended
    assert "Error" not in ended
    assert database_has_ended(data_folder)


def test_a_long_drain_says_how_to_end_it_at_once_and_that_ends_the_database_too(
    shell: Shell, data_folder: Path, tmp_path: Path, port: int
) -> None:
    (tmp_path / "slow_tasks.py").write_text(SLOW)
    terminal = shell(f"{sys.executable} -m bobrai dev --handlers slow_tasks; echo ended with $?")
    submit(port, {"type": "slow", "payload": 600})
    terminal.type(CTRL_C)
    terminal.wait_for("a second SIGTERM or Ctrl-C ends the process at once")
    terminal.type(CTRL_C)
    terminal.wait_for("ended with 130")
    eventually_sync(lambda: database_has_ended(data_folder), message="the database has ended as well")


def test_a_terminal_that_closes_ends_all_in_good_order(
    shell: Shell, make_run: str, data_folder: Path, tmp_path: Path, port: int
) -> None:
    (tmp_path / "slow_tasks.py").write_text(SLOW)
    terminal = shell(f'{make_run} ARGS="--handlers slow_tasks"')
    family = terminal.note_family()
    submit(port, {"type": "slow", "payload": 2})
    terminal.hang_up()
    eventually_sync(lambda: not any(map(is_alive, family)), 30, message="all have ended")
    assert database_has_ended(data_folder)
    assert "fast shutdown" in (data_folder / "postgresql" / "log").read_text()


def test_what_was_killed_leaves_a_database_that_the_next_one_takes_over_and_ends(
    processes: Processes, data_folder: Path
) -> None:
    """Also when another process has the number by then, as after a restart of the machine."""
    killed = processes.start("dev", wait_ready=False).wait_ready(60)
    killed.kill()
    orphan = postmaster(data_folder)
    (data_folder / "postgresql" / ".handle_pids.json").write_text(json.dumps([os.getpid()]))
    again = processes.start("dev", wait_ready=False).wait_ready(60)
    assert postmaster(data_folder) == orphan
    again.terminate()
    assert again.wait() == 0
    assert database_has_ended(data_folder)


def test_a_database_that_two_use_ends_with_the_second(processes: Processes, data_folder: Path) -> None:
    one = processes.start("dev", wait_ready=False).wait_ready(60)
    other = processes.start("dev", wait_ready=False).wait_ready(60)
    one.terminate()
    assert one.wait() == 0
    assert other.is_ready()
    assert not database_has_ended(data_folder)
    other.terminate()
    assert other.wait() == 0
    assert database_has_ended(data_folder)
