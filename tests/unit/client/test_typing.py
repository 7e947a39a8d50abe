"""What type checkers say of calls: they know payload and result by the handler's own signature."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import environments
from tests.support.processes import REPOSITORY

TYPED = Path(__file__).parent / "typed"
CALLS = TYPED / "calls.py"
# the first run of all makes pyright's environment, and reads the types of every package
pytestmark = [pytest.mark.timeout(environments.INSTALL_SECONDS), pytest.mark.xdist_group("typing")]


def marked() -> set[int]:
    """The lines of which the file says that they are refused."""
    lines = CALLS.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if re.search(r"# refused\b", line)}


def test_mypy_refuses_what_is_marked_and_nothing_else(tmp_path: Path) -> None:
    settings = tmp_path / "mypy.ini"
    settings.write_text(
        f"[mypy]\nstrict = true\nmypy_path = {REPOSITORY / 'services'}:{TYPED}\nwarn_unreachable = true\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(settings), "--cache-dir", str(REPOSITORY / ".make/mypy"),
         "--hide-error-context", "--no-error-summary", str(CALLS)],
        capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.stderr == ""
    said = re.findall(r"^(?:.*/)?(\w+\.py):(\d+): error: ", done.stdout, re.MULTILINE)
    assert {name for name, _ in said} == {CALLS.name}, done.stdout
    assert {int(line) for _, line in said} == marked(), done.stdout


def test_pyright_refuses_what_is_marked_and_nothing_else(tmp_path: Path) -> None:
    tools = environments.install("pyright", environments.PYRIGHT)
    shutil.copytree(TYPED, tmp_path, dirs_exist_ok=True)  # it looks at nothing outside of the project's folder
    settings = tmp_path / "pyrightconfig.json"
    paths = [str(REPOSITORY / "services")]
    settings.write_text(json.dumps({"include": [CALLS.name], "extraPaths": paths, "typeCheckingMode": "strict"}))
    done = subprocess.run(
        [str(tools / "pyright"), "--outputjson", "--pythonpath", sys.executable, "--project", str(settings)],
        capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path,
        env={"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )  # fmt: skip
    said = [each for each in json.loads(done.stdout)["generalDiagnostics"] if each["severity"] == "error"]
    assert {Path(each["file"]).name for each in said} == {CALLS.name}, said
    assert {each["range"]["start"]["line"] + 1 for each in said} == marked(), said
