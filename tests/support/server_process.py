"""One server as a process in a session of its own, which any process of the test run may stop, freeze or start again.

What is running is written beside the server's data, so that the handle of another worker process finds it there.
"""

import contextlib
import json
import os
import pwd
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.support.discovery import Installation
from tests.support.eventually import eventually_sync
from tests.support.reaper import is_alive
from tests.support.run_folder import RunFolder

LOG_TAIL_CHARACTERS = 4000

# kept for the life of this process: a Popen that is forgotten warns, and only its owner can collect its exit code
_children: dict[int, subprocess.Popen[bytes]] = {}


class ServerProcess:
    """Starts, signals and watches one server; owns nothing but its pid file and log."""

    def __init__(
        self, run: RunFolder, installation: Installation, folder: Path, *, stop_signal: signal.Signals
    ) -> None:
        self.run = run
        self.installation = installation
        self.folder = folder
        self.log = folder / "server.log"
        self._stop_signal = stop_signal
        self._state = folder / "process.json"

    @property
    def container(self) -> str:
        """The name of the server's container, where it runs in one."""
        return f"{self.run.path.name}-{self.folder.name}" if self.installation.image else ""

    def start(self, program: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        """Start the program; returns at once (see `wait_ready`)."""
        command = self.installation.command(program, *arguments, share=self.folder, container=self.container)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "RABBITMQ"))}
        user = self.installation.user
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE if self.container else subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, cwd="/", env={**clean, **(environment or {})}, start_new_session=True,
                user=user, group=user and _primary_group(user), extra_groups=[] if user else None,
            )  # fmt: skip
        if process.stdin is not None:
            lines = (f"{name}={value}\n" for name, value in (environment or {}).items())
            process.stdin.write("".join(lines).encode())
            process.stdin.close()
            self.run.started(container=self.container)
        _children[process.pid] = process
        identity = {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
        self.run.write(self._state, identity)
        self.run.started(**identity, stop_signal=int(self._stop_signal))

    def wait_ready(self, ready: Callable[[], object], *, timeout: float) -> None:
        """Wait until `ready` gives a true value; a server that ends instead is reported with the end of its log."""

        def ready_or_dead() -> bool:
            if not self.is_running():
                return True
            return bool(ready())

        try:
            eventually_sync(ready_or_dead, timeout, message=f"{self.folder.name} is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from error
        if not self.is_running():
            raise ServerDied(f"{self.folder.name} ended while it started:\n{self.log_tail()}")

    def process(self) -> psutil.Process | None:
        """The live process, whoever started it."""
        if not self._state.exists():
            return None
        identity = json.loads(self._state.read_text())
        if (child := _children.get(identity["pid"])) is not None:
            child.poll()
        try:
            process = psutil.Process(identity["pid"])
            same = abs(process.create_time() - identity["created"]) < 1
        except psutil.NoSuchProcess:
            return None
        return process if same and is_alive(process) else None

    def is_running(self) -> bool:
        """Whether it runs (a frozen one does)."""
        return self.process() is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server alone; nothing happens when it is gone."""
        if self.container:
            subprocess.run(["docker", "kill", f"--signal={number.name}", self.container], check=False)
        elif (process := self.process()) is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def send_to_all(self, number: signal.Signals) -> None:
        """Send a signal to the server and every process below it: as when a machine dies or freezes."""
        process = self.process()
        if self.container or process is None:
            self.send(number)
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.send_signal(number)

    def stop(self, number: signal.Signals, *, timeout: float = 20.0) -> None:
        """Ask it to end with this signal, and wait until it has."""
        self.send(signal.SIGCONT)
        self.send(number)
        self.wait_gone(timeout=timeout)

    def kill(self) -> None:
        """SIGKILL to all of it, and wait until it is gone."""
        self.send_to_all(signal.SIGKILL)
        self.wait_gone(timeout=10)

    def wait_gone(self, *, timeout: float) -> None:
        """Wait until the process has ended."""
        eventually_sync(lambda: not self.is_running(), timeout, message=f"{self.folder.name} has ended")

    def log_tail(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:] if self.log.exists() else ""


class ServerDied(Exception):
    """A server ended although it should have started; the message holds the end of its log."""


def _primary_group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid
