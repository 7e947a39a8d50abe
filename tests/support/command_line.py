"""The command line as a script runs it: a process with pipes, and what became of it.

In: arguments, and an API's URL. Out: the exit code, and both outputs.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.processes import PYTHONPATH

SECONDS = 60


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


class CommandLine:
    """`bobrai` with an environment of its own; nothing of the user's configuration counts."""

    def __init__(self, url: str, folder: Path) -> None:
        foreign = ("BOBRAI_", "OTEL_", "PG", "XDG_", "NO_COLOR", "FORCE_COLOR")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.environment = {**clean, "PYTHONPATH": str(PYTHONPATH), "BOBRAI_URL": url, "HOME": str(folder)}
        self._folder = folder
        self.program = folder / "bobrai"
        self.program.write_text(f'#!/bin/sh\nexec {sys.executable} -m bobrai "$@"\n')
        self.program.chmod(0o755)

    def run(self, *arguments: object, stdin: str = "", environment: Mapping[str, str] | None = None) -> Done:
        """Run a command to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "bobrai", *map(str, arguments)],
            input=stdin, capture_output=True, text=True, timeout=SECONDS, cwd=self._folder,
            env={**self.environment, **(environment or {})},
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def out(self, *arguments: object, stdin: str = "") -> str:
        """What a command prints that must end well and complain about nothing."""
        done = self.run(*arguments, stdin=stdin)
        assert (done.code, done.err) == (0, ""), f"code {done.code}: {done.err}"
        return done.out

    def started(self, *arguments: object, **pipes: Any) -> "subprocess.Popen[bytes]":
        """A command that runs."""
        return subprocess.Popen(
            [sys.executable, "-m", "bobrai", *map(str, arguments)], cwd=self._folder, env=self.environment, **pipes
        )
