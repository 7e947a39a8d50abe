"""The product's own commands as real processes: `python -m bobrai api`, and so on.

Every process gets the test's environment, a free port, a log file, and a certain end: it is killed when the test is
over, and its log is shown when the test failed.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

from tests.support.eventually import eventually, eventually_sync
from tests.support.reaper import is_alive
from tests.support.run_folder import RunFolder

READY_SECONDS = 20.0
REPOSITORY = Path(__file__).parents[2]
# a test's own handler modules are importable, and the product also where it is not installed
PYTHONPATH = f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'services'}"
# where each command listens; the test's process gets a free port there
BIND_VARIABLES = {
    "api": "BOBRAI_API_BIND",
    "dev": "BOBRAI_API_BIND",
    "dispatcher": "BOBRAI_DISPATCHER_HEALTH_BIND",
    "worker": "BOBRAI_WORKER_HEALTH_BIND",
    "external-metrics": "BOBRAI_EXTERNAL_METRICS_HEALTH_BIND",
}


class Process:
    """One process of the product under test."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path, port: int | None) -> None:
        self.name = name
        self.port = port
        self.log = log
        self._popen = popen
        self._psutil = psutil.Process(popen.pid)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def url(self) -> str:
        """Where its HTTP port answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while it runs, negative after a signal."""
        return self._popen.poll()

    def is_running(self) -> bool:
        """Whether it has not ended (a frozen one runs)."""
        return self.exit_code is None

    def get(self, path: str, *, timeout: float = 2.0) -> tuple[int, bytes]:
        """One GET to its port: status and body; raises OSError when it does not answer."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=timeout) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def is_ready(self) -> bool:
        """Whether /readyz says 200 now."""
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def wait_ready(self, timeout: float = READY_SECONDS) -> Self:
        """Wait until /readyz says 200; a process that ends instead is reported with its log."""
        eventually_sync(lambda: self.is_ready() or not self.is_running(), timeout, message=f"{self.name} is ready")
        assert self.is_running(), f"{self.name} ended with {self.exit_code} while it started:\n{self.log_tail()}"
        return self

    def wait(self, timeout: float = 30.0) -> int:
        """Wait until it has ended and return its exit code."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{self.name} has not ended within {timeout:g} s:\n{self.log_tail()}") from error

    async def exited(self, timeout: float = 30.0) -> int:
        """`wait`, for a test whose event loop must go on meanwhile."""
        await eventually(lambda: not self.is_running(), timeout, message=f"{self.name} has ended")
        return self._popen.returncode

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM: ask it to drain and end; see `wait`."""
        self.send(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: it keeps its connections and does nothing."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to it and its children, and wait until it is gone."""
        family = [self._psutil]
        with contextlib.suppress(psutil.NoSuchProcess):
            family += self._psutil.children(recursive=True)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self._popen.wait(10)
        eventually_sync(lambda: not any(map(is_alive, family)), message=f"{self.name} is gone")

    def memory_bytes(self) -> int:
        """Resident memory of the process."""
        return int(self._psutil.memory_info().rss)

    def cpu_seconds(self) -> float:
        """User and system time it has used so far."""
        times = self._psutil.cpu_times()
        return float(times.user + times.system)

    def log_text(self) -> str:
        """All it printed."""
        return self.log.read_text(errors="replace")

    def log_events(self) -> list[dict[str, Any]]:
        """The lines it printed that are JSON objects."""
        lines = [line for line in self.log_text().splitlines() if line.startswith("{")]
        return [json.loads(line) for line in lines]

    def log_tail(self, characters: int = 6000) -> str:
        """The end of what it printed."""
        return self.log_text()[-characters:]


class Processes:
    """Starts processes for one test and ends all of them."""

    def __init__(self, run: RunFolder, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.environment = dict(environment or {})
        """Given to every process started from now on, for example the database's address."""
        self.all: list[Process] = []
        self._run = run
        self._folder = folder
        self._numbers = itertools.count(1)

    def start(
        self,
        command: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
        wait_ready: bool = True,
    ) -> Process:
        """Start `python -m bobrai COMMAND ARGUMENTS` on a free port (or `port`), and by default wait for /readyz."""
        variables = {**self.environment}
        if command in BIND_VARIABLES:
            port = port or self._run.free_port()
            variables[BIND_VARIABLES[command]] = f"127.0.0.1:{port}"
        process = self.run(
            [sys.executable, "-m", "bobrai", command, *arguments],
            name=command, environment={**variables, **(environment or {})}, port=port,
        )  # fmt: skip
        return process.wait_ready() if wait_ready and port else process

    def run(
        self,
        command: Sequence[str],
        *,
        name: str,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> Process:
        """Start any command with the same care; without `environment`, the common one."""
        log = self._folder / f"{name}-{next(self._numbers)}.log"
        given = self.environment if environment is None else environment
        foreign = ("BOBRAI_", "OTEL_", "PG", "COV_")
        clean = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        with log.open("wb") as output:
            popen = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=self._folder,
                env={**clean, "PYTHONUNBUFFERED": "1", "PYTHONPATH": PYTHONPATH, **given},
                start_new_session=True,
            )  # fmt: skip
        process = Process(name, popen, log, port)
        self.all.append(process)
        created = process._psutil.create_time()
        self._run.started(pid=popen.pid, created=created, stop_signal=int(signal.SIGKILL))
        return process

    def close(self) -> None:
        """Kill whatever still runs."""
        for process in reversed(self.all):
            if process.is_running():
                process.kill()

    def report(self) -> list[tuple[str, str]]:
        """A title and the log's end for each process, to be shown when a test failed."""
        return [
            (f"log of {each.name} (pid {each.pid}, exit code {each.exit_code})", each.log_tail()) for each in self.all
        ]
