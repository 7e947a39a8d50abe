"""A real Prometheus over a set of targets, with the labels that a scrape in Kubernetes adds; and questions to it.

In: targets; the alerts of the chart. Out: a process that `Processes` ends, and answers of its HTTP API.
"""

import json
import math
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.observe import programs
from tests.support.processes import Process, Processes
from tests.support.run_folder import RunFolder

SCRAPE_SECONDS = 1
ALERTS = Path(__file__).parents[2] / "charts" / "bobrai" / "alerts"


@dataclass(frozen=True)
class Target:
    """One port to scrape."""

    job: str
    pod: str
    port: int
    path: str = "/metrics"
    parameters: Mapping[str, Sequence[str]] = field(default_factory=dict)


class QueryFailed(Exception):
    """Prometheus refused a query; the message is its own."""


class Prometheus:
    """One server and its API."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.url = process.url

    @classmethod
    def start(
        cls, run: RunFolder, processes: Processes, folder: Path, targets: Sequence[Target], namespace: str
    ) -> "Prometheus":
        """Start one that keeps its data in `folder` and stores exemplars; raises `ProgramMissing`."""
        program = programs.find(run, "prometheus")
        configuration = folder / "prometheus.json"
        configuration.write_text(json.dumps(_configuration(targets, namespace), indent=1))
        _check(program, configuration)
        port = run.free_port()
        command = [
            program, f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'prometheus-data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage", "--log.level=warn",
        ]  # fmt: skip
        return cls(processes.run(command, name="prometheus", environment={}, port=port))

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return self.process.get("/-/ready")[0] == 200
        except OSError:
            return False

    def targets_down(self) -> list[str]:
        """What it could not scrape, and why."""
        found = self._get("/api/v1/targets", {"state": "active"})["activeTargets"]
        return [f"{each['labels']['pod']}: {each['lastError'] or each['health']}" for each in found
                if each["health"] != "up"]  # fmt: skip

    def values(self, query: str, seconds: float, at: float) -> list[float]:
        """Every finite value of the query over the last `seconds` up to the moment `at`."""
        answer = self._get("/api/v1/query_range", {"query": query, "start": at - seconds, "end": at, "step": 2})
        numbers = (float(value) for series in answer["result"] for _, value in series["values"])
        return [number for number in numbers if math.isfinite(number)]

    def now(self, query: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The instant value of each series, by its labels."""
        answer = self._get("/api/v1/query", {"query": query})
        return {tuple(sorted(each["metric"].items())): float(each["value"][1]) for each in answer["result"]}

    def exemplars(self, query: str, seconds: float, at: float) -> list[dict[str, Any]]:
        """The exemplars behind a query, as Grafana asks for them."""
        answer = self._get("/api/v1/query_exemplars", {"query": query, "start": at - seconds, "end": at})
        return [exemplar for series in answer for exemplar in series["exemplars"]]

    def label_values(self, label: str, selector: str) -> list[str]:
        """The values of a label, as a dashboard's variable lists them."""
        return list(self._get(f"/api/v1/label/{label}/values", {"match[]": selector}))

    def _get(self, path: str, parameters: Mapping[str, object]) -> Any:
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise QueryFailed(error.read().decode(errors="replace")) from error


def _configuration(targets: Sequence[Target], namespace: str) -> dict[str, Any]:
    """Prometheus reads YAML, of which JSON is a part."""
    return {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"},
        "rule_files": [str(ALERTS / "*.yaml")],
        "scrape_configs": [
            {
                "job_name": f"{target.job}/{number}",
                "metrics_path": target.path,
                "params": {name: list(values) for name, values in target.parameters.items()},
                "static_configs": [
                    {
                        "targets": [f"127.0.0.1:{target.port}"],
                        "labels": {"job": target.job, "namespace": namespace, "pod": target.pod},
                    }
                ],
            }
            for number, target in enumerate(targets)
        ],
    }


def _check(program: str, configuration: Path) -> None:
    promtool = shutil.which("promtool", path=f"{Path(program).parent}")
    if promtool is not None:
        done = subprocess.run([promtool, "check", "config", str(configuration)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
