"""Stops every server and process of a test run: run as `python -m tests.support.reaper FOLDER`.

It waits until its standard input closes, which the kernel does when the run ends, in whatever way it ends (also by
SIGKILL). Then it stops what `started.jsonl` lists and removes the folder. Started by `Reaper` in the run's controller.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tests.support.eventually import NeverHappened, eventually_sync
from tests.support.run_folder import RunFolder

POLITE_SECONDS = 5.0
REPOSITORY = Path(__file__).parents[2]


class Reaper:
    """The controller's end of the pipe."""

    def __init__(self, run: RunFolder) -> None:
        command = [sys.executable, "-m", "tests.support.reaper", str(run.path)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=REPOSITORY, start_new_session=True,
        )  # fmt: skip

    def finish(self) -> int:
        """Have everything stopped, wait for it, and return 0 when nothing was left running."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(timeout=60)


def stop_everything(run: RunFolder) -> int:
    """Ask all to stop, kill what does not within five seconds; returns the number of survivors."""
    listed = run.path / "started.jsonl"
    entries: list[dict[str, Any]] = []
    if listed.exists():
        entries = [json.loads(line) for line in listed.read_text().splitlines()]
    processes = [process for entry in entries if (process := _process_of(entry)) is not None]
    family = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            family += process.children(recursive=True)
    for process, entry in ((process, entry) for entry in entries if (process := _process_of(entry))):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)
            process.send_signal(entry["stop_signal"])
    _wait_gone(processes)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for entry in entries:
        if "container" in entry:
            subprocess.run(["docker", "rm", "--force", entry["container"]], capture_output=True, check=False)
        if "epmd_port" in entry:
            _end_epmd(entry["epmd_port"])
    return len(_wait_gone(family))


def _wait_gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait at most five seconds; returns those that still run (a zombie has ended, its parent has yet to notice)."""

    def alive() -> list[psutil.Process]:
        return [process for process in processes if is_alive(process)]

    with contextlib.suppress(NeverHappened):
        eventually_sync(lambda: not alive(), timeout=POLITE_SECONDS)
    return alive()


def is_alive(process: psutil.Process) -> bool:
    """Whether any thread of it still runs; a process whose parent has yet to notice its end does not count."""
    try:
        # the main thread of a killed process may be a zombie while another still holds its sockets open
        return bool(process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1))
    except psutil.NoSuchProcess:
        return False


def is_alive_pid(pid: int) -> bool:
    """`is_alive` for a number of which we know only that it was a process once."""
    return psutil.pid_exists(pid) and is_alive(psutil.Process(pid))


def _process_of(entry: dict[str, Any]) -> psutil.Process | None:
    """The live process of an entry; None when it is gone, also when its number now belongs to another."""
    if "pid" not in entry:
        return None
    try:
        process = psutil.Process(entry["pid"])
        return process if abs(process.create_time() - entry["created"]) < 1 else None
    except psutil.NoSuchProcess:
        return None


def _end_epmd(port: int) -> None:
    """Ask Erlang's port mapper of this run to exit; it has detached itself from everything that we could signal."""

    def agreed() -> bool:
        # it refuses until it has noticed that its last node is gone
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                connection.sendall(b"\x00\x01k")
                return connection.recv(2) == b"OK"
        except ConnectionRefusedError:
            return True

    with contextlib.suppress(NeverHappened):
        eventually_sync(agreed, timeout=POLITE_SECONDS)


def main() -> int:
    """Wait for the end of the run, then clean up after it."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    run = RunFolder(Path(sys.argv[1]))
    os.read(sys.stdin.fileno(), 1)
    survivors = stop_everything(run)
    run.remove()
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
