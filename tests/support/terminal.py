"""A terminal for tests: what a person sees, types, and closes.

In: a command. Out: it runs as the leader of a session of its own, with a pseudo-terminal as its controlling one.
"""

import contextlib
import os
import pty
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.support.eventually import NeverHappened, eventually_sync
from tests.support.run_folder import RunFolder

COLUMNS, LINES = "120", "40"


class Terminal:
    """A command on a terminal; `close` it."""

    def __init__(
        self, run: RunFolder, command: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        foreign = ("BOBRAI_", "OTEL_", "PG", "COV_", "MAKE", "MFLAGS")
        clean = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        sized = {"COLUMNS": COLUMNS, "LINES": LINES, "TERM": "xterm"}
        self._popen = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave, cwd=folder,
            env={**clean, **sized, **(environment or {})},
        )  # fmt: skip
        os.close(slave)
        self._shown = b""
        self._family: set[psutil.Process] = set()
        created = psutil.Process(self._popen.pid).create_time()
        run.started(pid=self._popen.pid, created=created, stop_signal=int(signal.SIGKILL))

    def close(self) -> None:
        """Close the window and kill whatever is left of the session."""
        self.note_family()
        self.hang_up()
        for one in self._family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self._popen.wait(10)

    def note_family(self) -> set[psutil.Process]:
        """Return the processes that run on the terminal now, and end them when it is over."""
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self._popen.pid)
            self._family |= {leader, *leader.children(recursive=True)}
        return set(self._family)

    @property
    def shown(self) -> str:
        """Everything that was printed so far."""
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self._master, 65536):
                self._shown += data
        return self._shown.decode(errors="replace")

    def wait_for(self, text: str, timeout: float = 30) -> None:
        """Wait until it shows the text."""
        try:
            eventually_sync(lambda: text in self.shown, timeout, message=f"the terminal shows {text!r}")
        except NeverHappened as error:
            raise NeverHappened(f"{error}; it shows:\n{self.shown[-4000:]}") from None

    def type(self, text: str) -> None:
        """Press keys; "\\x03" is Ctrl-C."""
        os.write(self._master, text.encode())

    def hang_up(self) -> None:
        """Close the window."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def wait(self, timeout: float = 30) -> int:
        """Wait until the command has ended and return its exit code."""
        eventually_sync(lambda: self.shown is not None and self._popen.poll() is not None, timeout, message="it ends")
        return self._popen.returncode
