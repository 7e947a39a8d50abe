"""`kubectl` and `helm` on one context, pinned at the start: a terminal that switches meanwhile changes nothing.

Out: what a command prints, or CommandFailed with what it said. Commands run in sessions of their own, so that Ctrl-C
reaches this program alone, which then still has them to clean up with.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.charts import helm_binary

COMMAND_SECONDS = 60.0
STOP_SECONDS = 20.0

Body = dict[str, Any]


class Refused(Exception):
    """The run cannot begin, or cannot go on, for a reason that the user can change; the message says which."""


class CommandFailed(AssertionError):
    """A command ended badly; the message has its last lines."""


class Command:
    """A program with the arguments that every call begins with."""

    def __init__(self, program: Sequence[str]) -> None:
        self.program = list(program)

    def attempt(
        self, *arguments: str, given: str | None = None, seconds: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end, however it ends; one that hangs ends with code 124."""
        command = [*self.program, *arguments]
        try:
            return subprocess.run(
                command, input=given, capture_output=True, text=True, timeout=seconds, check=False,
                start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"no answer within {seconds:g} s")

    def run(self, *arguments: str, given: str | None = None, seconds: float = COMMAND_SECONDS) -> str:
        """Return what it prints; raises CommandFailed."""
        done = self.attempt(*arguments, given=given, seconds=seconds)
        if done.returncode != 0:
            name = Path(self.program[0]).name
            raise CommandFailed(f"{name} {' '.join(arguments[:4])}: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run beside the block; what still runs at its end is told to stop."""
        process = subprocess.Popen(
            [*self.program, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


class Kubectl(Command):
    """`kubectl` in a context, and in a namespace once one is chosen."""

    def __init__(self, path: str, context: str, namespace: str = "") -> None:
        self.path, self.context = path, context
        super().__init__([path, f"--context={context}", *([f"--namespace={namespace}"] if namespace else [])])

    def inside(self, namespace: str) -> "Kubectl":
        """The same in a namespace."""
        return Kubectl(self.path, self.context, namespace)

    def get(self, *what: str) -> Body:
        """Return objects as the API server shows them."""
        found: Body = json.loads(self.run("get", *what, "--output=json"))
        return found

    def items(self, *what: str) -> list[Body]:
        """Return a list of objects, empty when there are none."""
        return list(self.get(*what)["items"])

    def exists(self, *what: str) -> bool:
        """Whether an object is there; a doubtful answer is no answer."""
        return bool(self.run("get", *what, "--ignore-not-found", "--output=name").strip())

    def may(self, *what: str) -> bool:
        """Whether the current user may do this, such as "create", "pods"."""
        return self.attempt("auth", "can-i", *what).stdout.strip() == "yes"


def current_context() -> tuple[str, str]:
    """Return kubectl's path and the current context; raises Refused."""
    path = shutil.which("kubectl")
    if path is None:
        raise Refused("there is no kubectl on PATH; install it: https://kubernetes.io/docs/tasks/tools/")
    context = Command([path]).attempt("config", "current-context").stdout.strip()
    if not context:
        raise Refused(
            "kubectl has no current context; choose one: kubectl config use-context NAME, or kind create cluster"
        )
    return path, context


def find_helm() -> tuple[Path, str]:
    """Return the Helm that is there, 3 or 4, and its version; raises Refused."""
    try:
        path = helm_binary.find_any()
    except helm_binary.HelmMissing as error:
        raise Refused(str(error)) from error
    said = Command([str(path)]).run("version", "--short")
    found = re.match(r"v?([\w.-]+)", said)
    return path, found[1] if found else said.strip()


def environment_flag(name: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a variable such as KEEP=1 is on."""
    return environment.get(name, "") not in {"", "0"}
