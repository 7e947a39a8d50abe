"""The examples of docs/client.md, run in their order against the whole service, print what the page says."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.databases import Database
from tests.support.processes import PYTHONPATH, REPOSITORY, Processes

PAGE = REPOSITORY / "docs" / "client.md"


def blocks() -> list[str]:
    """The page's Python, block by block; the first one is the module of the handlers."""
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_examples_print_what_the_page_says(database: Database, processes: Processes, tmp_path: Path) -> None:
    handlers, *examples = blocks()
    assert handlers.startswith("# my_tasks.py\n")
    (tmp_path / "my_tasks.py").write_text(handlers)
    processes.environment["BOBRAI_DATABASE_URL"] = database.url
    service = processes.start("dev", "--handlers", "my_tasks")
    program = "\n".join(examples).replace('"http://127.0.0.1:8001"', f'"{service.url}"')
    assert service.url in program
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", program],
        env={"PYTHONPATH": f"{PYTHONPATH}:{tmp_path}", "BOBRAI_URL": service.url, "PATH": "/usr/bin:/bin"},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"print\(.*\)  # (.*)$", program, re.MULTILINE)
    assert len(promised) == program.count("print(")
    assert done.stdout.splitlines() == promised
