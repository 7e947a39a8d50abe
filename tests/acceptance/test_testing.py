"""What people who write handlers test them with: the worked example of docs/testing.md, run as they would run it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.run_folder import RunFolder

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "docs" / "examples"

pytestmark = pytest.mark.timeout(120)


def said_in(folder: Path, *arguments: str) -> str:
    """What pytest says in a folder of somebody who has installed bobrAI."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", "-W", "error", "-o", "asyncio_mode=strict", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.stdout + done.stderr


def project(run_folder: RunFolder) -> Path:
    """A folder that the embedded server's user can use when we are root, and which is no part of this checkout."""
    folder = run_folder.folder(f"testing-{run_folder.free_port()}")
    (folder / "pytest.ini").write_text("[pytest]\nbobrai_handlers = newsletter\npythonpath = .\n")
    return folder


def test_the_worked_example_passes(run_folder: RunFolder) -> None:
    folder = project(run_folder)
    for name in ("newsletter.py", "test_newsletter.py"):
        (folder / name).write_text((EXAMPLES / name).read_text())
    said = said_in(folder, "-q")
    assert re.search(r"\n10 passed in ", said), said


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (REPOSITORY / "docs" / "testing.md").read_text()
    example = (EXAMPLES / "test_newsletter.py").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        for line in filter(None, map(str.strip, block.splitlines())):
            assert line in example, line


def test_services_of_tests_know_nothing_of_each_other_nor_of_the_environment(run_folder: RunFolder) -> None:
    folder = project(run_folder)
    (folder / "newsletter.py").write_text(
        "from bobrai import task\n\n@task('count', queue='mine')\ndef count(payload: int) -> int:\n    return payload\n"
    )
    (folder / "test_count.py").write_text(
        """
import os

import pytest
from newsletter import count

os.environ["BOBRAI_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:9/production"
os.environ["BOBRAI_AUTH_ANONYMOUS_SCOPES"] = "none"


@pytest.mark.parametrize("number", range(3))
def test_it_counts(bobrai_client, number):
    task = bobrai_client.submit(count, number)
    assert task.id == 1
    assert task.result(timeout=10) == number


@pytest.mark.bobrai("nowhere_to_be_found")
def test_a_module_that_is_not_there(bobrai_client):
    pass
"""
    )
    said = said_in(folder, "-q")
    assert "3 passed, 1 error" in said, said
    assert "BOBRAI_HANDLERS names 'nowhere_to_be_found'" in said
