"""pytest, with a second try: what fails runs once more, alone, and tells a defect from a busy machine.

In: pytest's options, no names of tests, and a folder in BOBRAI_TEST_FLAKY_FOLDER that all runs of one `.ci/run` share.
Out: 0 when every test passed at its first or second try. What needed two is a file in that folder, with its first
traceback; more than MOST_FLAKY of them are a failure. What broke otherwise than by failing tests is not tried again.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

FOLDER_VARIABLE = "BOBRAI_TEST_FLAKY_FOLDER"
MOST_FLAKY = 3
MOST_TRIED = 10
"""So many failures are no accident, and trying them one by one would take long."""


# --- in pytest: what failed, and how ---------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Have a file to write to."""
    parser.addoption("--outcomes", metavar="FILE", help="write {failed: {test: traceback}, passed: [test]} as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Watch from the controlling process alone."""
    if (file := config.getoption("outcomes")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Outcomes(Path(file)))


class _Outcomes:
    """Collects what the tests came to, and writes it when the run came to its end by itself."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._failed: dict[str, str] = {}
        self._passed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Hear of one phase of one test."""
        if report.failed:
            self._failed.setdefault(_own_name(report.nodeid), report.longreprtext)
        elif report.passed and report.when == "call":
            self._passed.append(_own_name(report.nodeid))

    def pytest_sessionfinish(self) -> None:
        """Write all of it."""
        self._file.write_text(json.dumps({"failed": self._failed, "passed": self._passed}))


def _own_name(nodeid: str) -> str:
    """A test's name without the group that pytest-xdist puts behind it."""
    return nodeid[: nodeid.rfind("@")] if nodeid.rfind("@") > nodeid.rfind("]") else nodeid


# --- around pytest: the second try -----------------------------------------------------------------------------------


def main(options: list[str], folder: Path) -> int:
    """Run the tests that pytest's options choose; returns the exit code."""
    code, outcomes = _pytest(options)
    failed: dict[str, str] = outcomes.get("failed", {})
    if code != pytest.ExitCode.TESTS_FAILED or not failed:
        return code
    if len(failed) > MOST_TRIED:
        print(f"{len(failed)} tests failed; none is tried again, for at most {MOST_TRIED} are")
        return code
    defects = [test for test, traceback in failed.items() if not _passes_alone(options, test, traceback, folder)]
    flaky = len(list(folder.iterdir()))
    if flaky > MOST_FLAKY:
        print(f"{flaky} tests passed only at their second try: more than {MOST_FLAKY} are no accident")
    for test in defects:
        print(f"FAILED TWICE {test}")
    return code if defects or flaky > MOST_FLAKY else 0


def _passes_alone(options: list[str], test: str, traceback: str, folder: Path) -> bool:
    print(f"== once more, alone: {test} ==")
    code, outcomes = _pytest([*options, "-n", "0", test])
    if code != 0 or test not in outcomes.get("passed", ()):  # a skipped test is no pass
        return False
    said = f"FLAKY {test}"
    print(said)
    indented = "\n".join(f"    {line}" for line in traceback.splitlines())
    (folder / f"{len(list(folder.iterdir())):03}.txt").write_text(f"{said}\n{indented}\n")
    return True


def _pytest(options: list[str]) -> tuple[int, dict[str, Any]]:
    """The exit code of one run, and its outcomes if it came to its end."""
    with tempfile.TemporaryDirectory(prefix="bobrai-outcomes-") as made:
        file = Path(made) / "outcomes.json"
        command = [sys.executable, "-m", "pytest", "-p", __spec__.name, "--outcomes", str(file), *options]
        code = subprocess.run(command, check=False).returncode
        if code < 0:
            print(f"pytest was ended by {signal.Signals(-code).name}")
            code = 128 - code  # as a shell says it
        return code, json.loads(file.read_text()) if file.exists() else {}


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # pytest writes to the same log
    sys.exit(main(sys.argv[1:], Path(os.environ[FOLDER_VARIABLE])))
