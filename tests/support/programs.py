"""Finding programs that look at the service from outside, as a reader's browser and a gateway do.

The order: what BOBRAI_TEST_BROWSER or BOBRAI_TEST_NGINX names, then PATH, then, as root on Debian or Ubuntu, the
distribution's package. `ProgramMissing` says what was tried; a test that needs the program is skipped with these words.
`python -m tests.support.programs` finds or installs all of them.
"""

import fcntl
import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

LOCK = Path(__file__).parents[2] / ".make" / "programs.lock"
INSTALL_SECONDS = 600


@dataclass(frozen=True)
class Program:
    """One program by the names that it has here and there, and the packages that bring it."""

    variable: str
    names: tuple[str, ...]
    packages: tuple[str, ...]


PROGRAMS = {
    "browser": Program(
        "BOBRAI_TEST_BROWSER",
        ("chromium-headless-shell", "chromium", "google-chrome", "google-chrome-stable"),
        ("chromium-headless-shell", "chromium"),
    ),
    "nginx": Program("BOBRAI_TEST_NGINX", ("nginx",), ("nginx-light", "nginx")),
}


class ProgramMissing(Exception):
    """A program could not be had; the message says what was tried and how to get it."""


@functools.cache
def find(name: str) -> Path:
    """Return the path of a program, installed if need be."""
    program = PROGRAMS[name]
    if given := os.environ.get(program.variable):
        return Path(given)
    if found := _on_path(program):
        return found
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found := _on_path(program) or _from_package(program):
            return found
    raise ProgramMissing(
        f"none of {', '.join(program.names)} is on PATH, and no package could be installed: "
        f"install one of {', '.join(program.packages)}, or set {program.variable}"
    )


def _on_path(program: Program) -> Path | None:
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))  # where users other than root do not look
    found = filter(None, (shutil.which(name, path=path) for name in program.names))
    return next(map(Path, found), None)


def _from_package(program: Program) -> Path | None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (
        ["apt-get", "update", "-qq"],
        *(["apt-get", "install", "-qq", "--no-install-recommends", package] for package in program.packages),
    ):
        print("tests:", *command, flush=True)
        subprocess.run(command, check=False, capture_output=True, timeout=INSTALL_SECONDS, env=quiet)
        if found := _on_path(program):
            return found
    return None


if __name__ == "__main__":
    for wanted in PROGRAMS:
        try:
            print(f"{wanted:<11} {find(wanted)}")
        except ProgramMissing as error:
            print(f"{wanted:<11} MISSING: its tests are skipped\n  {error}")
