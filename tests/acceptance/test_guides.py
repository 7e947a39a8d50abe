"""The pages for those who come from elsewhere: their code is read by Python, ours runs and is what mypy expects.

A block of ``python`` says in its first line whose it is. Ours are one module for each page, in their order.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_init import in_folder
from tests.support.processes import REPOSITORY
from tests.support.run_folder import RunFolder

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("guides")]

DOCS = REPOSITORY / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("from-*.md"))
OURS = "bobrAI"
THEIRS = {"Celery", "Dramatiq", "RQ", "arq"}
PROJECT = """
[tool.pytest.ini_options]
pythonpath = ["."]
python_files = ["from_*.py"]
bobrai_handlers = ["{module}"]
"""


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Every block of Python on a page: whose it is, and its text."""
    for text in re.findall(r"^```python\n(.*?)^```$", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL):
        owner, _, code = text.partition("\n")
        yield owner.removeprefix("# "), code


def module_of(page: str) -> str:
    return page.replace("-", "_")


@pytest.fixture(scope="module")
def folder(run_folder: RunFolder) -> Path:
    """Our code of each page, in a folder that also the user of an embedded server may enter."""
    folder = run_folder.folder(f"guides-{run_folder.free_port()}")
    for page in PAGES:
        own = folder / page
        own.mkdir()
        code = "\n".join(text for owner, text in blocks(page) if owner == OURS)
        (own / f"{module_of(page)}.py").write_text(code)
        (own / "pyproject.toml").write_text(PROJECT.format(module=module_of(page)))
    return folder


def test_there_are_guides() -> None:
    assert PAGES


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_whose_it_is_and_both_sides_are_shown(page: str) -> None:
    owners = {owner for owner, _ in blocks(page)}
    assert OURS in owners
    assert owners & THEIRS
    assert owners <= {OURS, *THEIRS}


@pytest.mark.parametrize("page", PAGES)
def test_their_code_is_python(page: str) -> None:
    for owner, code in blocks(page):
        compile(code, f"{page} ({owner})", "exec")


@pytest.mark.parametrize("page", PAGES)
def test_our_code_runs_and_its_tests_pass(folder: Path, page: str) -> None:
    done = in_folder(folder / page, "-m", "pytest", "-q")
    assert done.returncode == 0, done.stdout + done.stderr


def test_our_code_is_as_mypy_expects(folder: Path) -> None:
    modules = [f"{page}/{module_of(page)}.py" for page in PAGES]
    done = in_folder(folder, "-m", "mypy", "--strict", "--follow-imports=silent", *modules,
                     MYPYPATH=str(REPOSITORY / "services"))  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_a_guide_is_short_and_the_readme_leads_to_it(page: str) -> None:
    assert len((DOCS / f"{page}.md").read_text().splitlines()) < 250
    assert f"(docs/{page}.md)" in (REPOSITORY / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_what_a_guide_links_to_is_there(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", (DOCS / f"{page}.md").read_text()):
        text = (DOCS / (target or f"{page}.md")).read_text()
        headings = {
            re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-")
            for each in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        assert not anchor or anchor in headings, (target, anchor)
