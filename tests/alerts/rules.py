"""The alert rules as files: groups, rules and alerts, the metrics that an expression names, and promtool."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bobrai.telemetry.metrics import CATALOGUE
from tests.observe import programs
from tests.support.run_folder import RunFolder

REPOSITORY = Path(__file__).parents[2]
FILES = sorted((REPOSITORY / "charts" / "bobrai" / "alerts").glob("*.yaml"))
CASES = Path(__file__).with_name("cases")
RUNBOOKS = REPOSITORY / "docs" / "runbooks"
RUNBOOK_BASE = "https://github.com/bobrai/bobrai/blob/main/docs/runbooks/"
VARIABLE = "BOBRAI_TEST_PROMTOOL"

Rule = dict[str, Any]

_WORDS = {"and", "or", "unless", "bool", "by", "on", "ignoring", "offset", "group_left", "group_right"}
FOREIGN = {
    "rabbitmq_prometheus": {
        "rabbitmq_unreachable_cluster_peers_count",
        "rabbitmq_alarms_memory_used_watermark",
        "rabbitmq_alarms_free_disk_space_watermark",
        "rabbitmq_disk_space_available_bytes",
        "rabbitmq_process_resident_memory_bytes",
        "rabbitmq_resident_memory_limit_bytes",
    },
    "pgbouncer_exporter": {
        "pgbouncer_pools_client_waiting_connections",
        "pgbouncer_pools_client_maxwait_seconds",
        "pgbouncer_pools_server_active_connections",
    },
    "CloudNativePG": {
        "cnpg_pgbouncer_pools_cl_waiting",
        "cnpg_collector_last_available_backup_timestamp",
        "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp",
    },
    "kubelet": {"kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"},
    "kube-state-metrics": {
        "kube_statefulset_replicas",
        "kube_statefulset_status_replicas_ready",
        "kube_cronjob_created",
        "kube_cronjob_status_last_successful_time",
    },
}
"""What other programs export, as their sources or a real one say."""


def promtool(run: RunFolder) -> str:
    """The program, by environment variable, on PATH, or with Prometheus' package; raises ProgramMissing."""
    given = os.environ.get(VARIABLE)
    if given:
        return given
    if shutil.which("promtool") is None:
        programs.find(run, "prometheus")
    found = shutil.which("promtool")
    if found is None:
        raise programs.ProgramMissing(f"there is no promtool: put it on PATH, or set {VARIABLE}")
    return found


def run_promtool(run: RunFolder, *arguments: str) -> str:
    """Run it; a failure is an assertion with everything it said."""
    command = [promtool(run), *arguments]
    less = {**os.environ, "GOGC": "400"}  # garbage collections, which are a third of what it computes by default
    done = subprocess.run(command, env=less, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def groups() -> Iterator[dict[str, Any]]:
    """Every group of every file."""
    for file in FILES:
        yield from yaml.safe_load(file.read_text())["groups"]


def rules() -> Iterator[Rule]:
    """Every rule of every group."""
    for group in groups():
        yield from group["rules"]


def alerts() -> list[Rule]:
    """Every alert; one with two severities comes twice."""
    return [rule for rule in rules() if "alert" in rule]


def names() -> list[str]:
    """The names of all alerts."""
    return sorted({alert["alert"] for alert in alerts()})


def metrics_of(expression: str) -> set[str]:
    """The metrics that an expression names."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)", " ", bare)
    found = re.finditer(r"(?<![\w:.])([a-zA-Z_:][\w:]*)\s*(\()?", bare)
    return {match[1] for match in found if not match[2] and match[1] not in _WORDS}


def known() -> set[str]:
    """Every metric that an expression may name."""
    own = {name + suffix for name, metric in CATALOGUE.items() for suffix in _suffixes(metric.kind)}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    return own | recorded | set().union(*FOREIGN.values())


def _suffixes(kind: str) -> tuple[str, ...]:
    return ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
