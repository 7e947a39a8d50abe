"""The peers' own virtual environments under .make/peers/, with the newest releases from PyPI at the time of making.

In: a peer's name and requirements. Out: its bin folder and the versions in it. `make clean` removes them.
"""

import json
import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = Path(__file__).parents[3] / ".make" / "peers"


def install(name: str, requirements: tuple[str, ...]) -> Path:
    """Make the environment unless it is there already; returns its bin folder."""
    folder = ENVIRONMENTS / name
    stamp = folder / "requirements.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != list(requirements):
        print(f"installing {', '.join(requirements)} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        quiet = ["--quiet", "--quiet", "--disable-pip-version-check"]
        subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", *quiet, *requirements], check=True)
        stamp.write_text(json.dumps(requirements))
    return folder / "bin"


def versions(bin_folder: Path) -> dict[str, str]:
    """All packages of an environment."""
    command = [str(bin_folder / "python"), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {package["name"]: package["version"] for package in json.loads(done.stdout)}
