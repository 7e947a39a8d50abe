"""A real Alertmanager, configured as the Prometheus Operator does it from an AlertmanagerConfig.

In: the rendered object and the values of its Secrets. Out: a process that takes alerts, and what it sends to receivers.
The operator's own part is small: names in snake case, Secrets read, and the namespace added to routes and inhibitions.
"""

import json
import re
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.charts.helm import Manifest
from tests.observe import programs
from tests.support.processes import Process, Processes
from tests.support.run_folder import RunFolder

PROGRAM = "prometheus-alertmanager"
Json = dict[str, Any]


def configuration(rendered: Manifest, namespace: str, secrets: Mapping[str, str]) -> Json:
    """What Alertmanager reads; JSON is a part of YAML."""
    spec = rendered.spec
    mine = f'namespace="{namespace}"'
    return {
        "route": {
            "receiver": "null",
            "routes": [{**_route(spec["route"]), "matchers": [mine], "continue": True}],
        },
        "receivers": [{"name": "null"}, *(_plain(receiver, secrets) for receiver in spec["receivers"])],
        "inhibit_rules": [
            {
                "source_matchers": [mine, *map(_matcher, rule["sourceMatch"])],
                "target_matchers": [mine, *map(_matcher, rule["targetMatch"])],
                "equal": rule["equal"],
            }
            for rule in spec["inhibitRules"]
        ],
    }


def _route(route: Json) -> Json:
    made = {_snake(key): value for key, value in route.items() if key not in {"matchers", "routes"}}
    if matchers := route.get("matchers"):
        made["matchers"] = list(map(_matcher, matchers))
    return made | {"routes": list(map(_route, route.get("routes", [])))}


def _matcher(matcher: Json) -> str:
    return f'{matcher["name"]}{matcher["matchType"]}"{matcher["value"]}"'


def _plain(value: Any, secrets: Mapping[str, str]) -> Any:
    """Snake case, and a Secret's value for a reference to its key."""
    if isinstance(value, list):
        if value and set(value[0]) == {"key", "value"}:
            return {each["key"]: each["value"] for each in value}
        return [_plain(each, secrets) for each in value]
    if isinstance(value, dict):
        if set(value) == {"name", "key"}:
            return secrets[f"{value['name']}/{value['key']}"]
        return {_snake(key): _plain(each, secrets) for key, each in value.items()}
    return value


def _snake(name: str) -> str:
    """`requireTLS` → `require_tls`."""
    return re.sub(r"(?<=[a-z])([A-Z]+)", lambda found: f"_{found[1]}", name).lower()


class Alertmanager:
    """One server and its API."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @classmethod
    def start(cls, run: RunFolder, processes: Processes, folder: Path, content: Json) -> "Alertmanager":
        """Start one with this configuration; raises `ProgramMissing`."""
        file = folder / "alertmanager.json"
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False))
        port = run.free_port()
        command = [
            programs.find(run, PROGRAM), f"--config.file={file}", f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=debug",
        ]  # fmt: skip
        return cls(processes.run(command, name="alertmanager", environment={}, port=port))

    def is_ready(self) -> bool:
        """Whether it takes alerts."""
        try:
            return self.process.get("/-/ready")[0] == 200
        except OSError:
            return False

    def fire(self, alerts: Sequence[Json]) -> None:
        """Give it alerts as Prometheus does."""
        request = urllib.request.Request(
            f"{self.process.url}/api/v2/alerts", json.dumps(alerts).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.status == 200

    def inhibited(self) -> set[str]:
        """The names of alerts that others keep quiet."""
        found = json.loads(self.process.get("/api/v2/alerts")[1])
        return {each["labels"]["alertname"] for each in found if each["status"]["inhibitedBy"]}


def check(run: RunFolder, file: Path) -> None:
    """Have amtool, which comes with Alertmanager, judge a configuration."""
    program = Path(programs.find(run, PROGRAM)).with_name("amtool")
    done = subprocess.run([program, "check-config", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
