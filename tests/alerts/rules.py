"""The alert rules as files: each alert with its file, the metrics that an expression names, and promtool."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

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
    done = subprocess.run([promtool(run), *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> Iterator[Rule]:
    """Every rule of every file."""
    for file in FILES:
        for group in yaml.safe_load(file.read_text())["groups"]:
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
