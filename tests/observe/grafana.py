"""Grafana with the dashboards of the chart and a data source, where Docker has its image or can pull it.

In: the address of a Prometheus. Out: an address to look at, without a login, on this machine alone.
"""

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from tests.observe.programs import ProgramMissing
from tests.support.eventually import NeverHappened, eventually_sync
from tests.support.run_folder import RunFolder

IMAGE = "grafana/grafana:12.2.0"
DASHBOARDS = Path(__file__).parents[2] / "charts" / "bobrai" / "dashboards"
PULL_SECONDS = 300
START_SECONDS = 90.0


def start(run: RunFolder, prometheus: str) -> str:
    """Start one that ends with the run, and return its address; raises `ProgramMissing`."""
    if shutil.which("docker") is None:
        raise ProgramMissing("there is no docker")
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode:
        _docker("pull", "--quiet", IMAGE)
    name, port = f"{run.path.name}-grafana", run.free_port()
    run.started(container=name)
    variables = {
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": port,
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Admin",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": "/dashboards/overview.json",
    }
    _docker(
        "run", "--detach", "--name", name, "--network", "host",
        "--volume", f"{_provisioning(run, prometheus)}:/etc/grafana/provisioning:ro",
        "--volume", f"{DASHBOARDS}:/dashboards:ro",
        *(f"--env={variable}={value}" for variable, value in variables.items()),
        IMAGE,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        eventually_sync(lambda: _answers(url), START_SECONDS, message="Grafana answers")
    except NeverHappened as error:
        logs = subprocess.run(["docker", "logs", "--tail", "5", name], capture_output=True, text=True, check=False)
        raise ProgramMissing(f"{error}: {logs.stderr or logs.stdout}") from error
    return url


def _provisioning(run: RunFolder, prometheus: str) -> Path:
    """Grafana reads YAML, of which JSON is a part."""
    folder = run.folder("grafana")
    source = {
        "name": "Prometheus", "uid": "prometheus", "type": "prometheus", "access": "proxy", "url": prometheus,
        "isDefault": True, "jsonData": {"httpMethod": "POST", "timeInterval": "1s"},
    }  # fmt: skip
    provider = {"name": "bobrAI", "folder": "bobrAI", "type": "file", "options": {"path": "/dashboards"}}
    for kind, content in (("datasources", {"datasources": [source]}), ("dashboards", {"providers": [provider]})):
        (folder / kind).mkdir(exist_ok=True)
        (folder / kind / "bobrai.yaml").write_text(json.dumps({"apiVersion": 1, **content}))
    return folder


def _docker(*arguments: str) -> None:
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=PULL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ProgramMissing(f"docker {arguments[0]} took longer than {PULL_SECONDS} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ProgramMissing(f"docker {arguments[0]}: {said[-1]}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/api/health", timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
