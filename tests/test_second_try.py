"""Proves how continuous integration judges: a defect fails, an accident is named, and neither is hidden."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.processes import PYTHONPATH, REPOSITORY
from tests.support.second_try import FOLDER_VARIABLE, MOST_FLAKY

# Each runs pytest several times.
pytestmark = pytest.mark.timeout(150)

ONCE = """
def test_{name}(tmp_path_factory):
    import pathlib
    seen = pathlib.Path("seen-{name}")
    before = seen.exists()
    seen.touch()
    {then}
    assert before, "the first try"
"""


class Ci:
    """A folder of tests, and one run of CI over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.flaky = folder / "flaky"
        self.flaky.mkdir()

    def run(self, tests: str, *options: str) -> "subprocess.CompletedProcess[str]":
        """Judge these tests."""
        (self.folder / "test_it.py").write_text(tests)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("BOBRAI_TEST", "PYTEST"))}
        return subprocess.run(
            [sys.executable, "-m", "tests.support.second_try", "-pno:cacheprovider", "-pxdist.plugin", *options],
            capture_output=True, text=True, check=False, cwd=self.folder, timeout=120,
            env={
                **clean, "PYTHONPATH": PYTHONPATH, FOLDER_VARIABLE: str(self.flaky),
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # most of a short run's time
            },
        )  # fmt: skip

    def named(self) -> list[str]:
        """What was written down as flaky."""
        return [file.read_text() for file in sorted(self.flaky.iterdir())]


@pytest.fixture
def ci(tmp_path: Path) -> Ci:
    return Ci(tmp_path)


def failing_once(*names: str, then: str = "") -> str:
    return "".join(ONCE.format(name=name, then=then) for name in names)


def test_what_passes_at_its_second_try_is_named_with_its_first_traceback(ci: Ci) -> None:
    run = ci.run("def test_good(): pass\n" + failing_once("shaky"), "-n", "2")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "FLAKY test_it.py::test_shaky\n" in run.stdout
    (told,) = ci.named()
    assert told.startswith("FLAKY test_it.py::test_shaky\n")
    assert "AssertionError: the first try" in told


def test_what_fails_twice_is_a_failure(ci: Ci) -> None:
    run = ci.run(failing_once("shaky") + "def test_broken(): assert 0\n")
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert "FAILED TWICE test_it.py::test_broken\n" in run.stdout
    assert "FLAKY test_it.py::test_shaky\n" in run.stdout
    assert len(ci.named()) == 1


def test_more_than_three_are_a_failure_also_when_several_runs_add_up(ci: Ci) -> None:
    assert ci.run(failing_once(*(f"shaky_{number}" for number in range(MOST_FLAKY)))).returncode == 0
    run = ci.run(failing_once("one_more"))
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert len(ci.named()) == MOST_FLAKY + 1


def test_a_test_that_is_skipped_at_its_second_try_has_not_passed(ci: Ci) -> None:
    run = ci.run(failing_once("evasive", then="__import__('pytest').skip() if before else None"))
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert ci.named() == []


def test_a_test_of_a_group_and_a_parameter_is_found_again(ci: Ci) -> None:
    grouped = (
        "import pytest\n@pytest.mark.xdist_group('cluster')\n@pytest.mark.parametrize('text', ['a@b c', '[x]'])\n"
        "def test_it(text): assert text != 'a@b c' or __import__('os').environ.get('PYTEST_XDIST_WORKER') is None\n"
    )
    run = ci.run(grouped, "-n", "2", "--dist", "loadgroup")
    assert run.returncode == 0, run.stdout + run.stderr
    assert ci.named()[0].startswith("FLAKY test_it.py::test_it[a@b c]\n")


@pytest.mark.parametrize(
    ("tests", "code"),
    [
        ("import nothing_of_this_name\n", pytest.ExitCode.INTERRUPTED),
        (
            "import os\ndef test_a(): assert 0\ndef test_b(): os.kill(os.getpid(), 9)\ndef test_c(): assert 0\n",
            128 + signal.SIGKILL,
        ),
        ("", pytest.ExitCode.NO_TESTS_COLLECTED),
    ],
    ids=["import fails", "pytest is killed", "no tests"],
)
def test_what_is_no_failed_test_is_never_tried_again(ci: Ci, tests: str, code: int) -> None:
    run = ci.run(tests)
    assert run.returncode == code, run.stdout + run.stderr
    assert "once more" not in run.stdout


def test_what_the_makefile_chooses_by_is_known_whichever_test_is_named() -> None:
    """Only the conftest files on the way to a named test are read, so they are no place for a marker."""
    chosen = " ".join(re.findall(r'\$\(PYTEST\).* -m ("[^"]+"|\w+) ', (REPOSITORY / "Makefile").read_text()))
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    known = {re.split(r"\W", marker)[0] for marker in settings["markers"]}
    assert {"faults", "images"} <= set(re.findall(r"\w+", chosen)) - {"not", "and"} <= known
