"""`make observe`, as a person runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.observe, pytest.mark.timeout(120)]

REPOSITORY = Path(__file__).parents[2]


def test_it_starts_everything_says_where_to_look_and_ends_by_itself() -> None:
    command = [sys.executable, "-m", "tests.observe", "--seconds", "1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    words = [line.split()[0] for line in done.stdout.splitlines()[-4:]]
    assert words == ["API", "Prometheus", "Grafana", "tasks"]
