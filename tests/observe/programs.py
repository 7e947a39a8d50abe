"""Finding Prometheus and what goes with it: named by an environment variable, on PATH, or the distribution's package.

Nothing is skipped in silence: `ProgramMissing` says what was tried.
"""

import os
import shutil
import subprocess

from tests.support.run_folder import RunFolder

VARIABLES = {
    "prometheus": "BOBRAI_TEST_PROMETHEUS",
    "prometheus-postgres-exporter": "BOBRAI_TEST_POSTGRES_EXPORTER",
    "prometheus-alertmanager": "BOBRAI_TEST_ALERTMANAGER",
}


class ProgramMissing(Exception):
    """A program could not be had; the message says how to get it."""


def find(run: RunFolder, program: str) -> str:
    """The path of a program; a package of the same name is installed where nothing else offers it."""
    variable = VARIABLES[program]
    if given := os.environ.get(variable):
        if not shutil.which(given):
            raise ProgramMissing(f"{variable}={given} is not a program")
        return given
    if found := shutil.which(program):
        return found
    with run.lock("packages"):
        return shutil.which(program) or _install(program, variable)


def _install(program: str, variable: str) -> str:
    hint = f"To get it: put it on PATH, or set {variable}."
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ProgramMissing(f"there is no {program} on PATH, and only root on Debian or Ubuntu can install it. {hint}")
    print(f"tests: installing the package {program}", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ["apt-get", "install", "-qq", "--no-install-recommends", program]
    done = subprocess.run(install, capture_output=True, text=True, env=quiet, check=False)
    if done.returncode:
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
        done = subprocess.run(install, capture_output=True, text=True, env=quiet, check=False)
    found = shutil.which(program)
    if found is None:
        raise ProgramMissing(f"the package {program} could not be installed: {done.stderr.strip()}\n{hint}")
    return found
