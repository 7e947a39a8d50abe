"""The command that begins a project: handlers with tests, a client, an image and values for the chart.

In: a name, and the files in ``template/``. Out: a folder, which is there whole or not at all.
"""

import errno
import importlib.util
import keyword
import re
import sys
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

import click

from bobrai import __version__
from bobrai.domain.errors import ConfigurationError

commands: Final = click.Group()

# What each file is for. In `template/` they are called the same and `.template`, without a leading dot.
_FILES: Final[Mapping[str, str]] = {
    "README.md": "how to run, test, build and deploy it",
    "pyproject.toml": "what it needs, and settings of pytest, ruff and mypy",
    "package/__init__.py": "",
    "package/tasks.py": "the handlers",
    "tests/test_tasks.py": "their tests: single attempts, and the whole service",
    "submit.py": "a client",
    "Dockerfile": "the worker's image",
    "values.yaml": "values for the chart",
    ".dockerignore": "",
    ".gitignore": "",
}
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", re.ASCII)  # also what an image may be called
_LONGEST: Final = 40
# Besides what is installed: what the project's files import, or are called.
_TAKEN: Final = {"pytest", "submit", "test", "tests"}


@commands.command("init")
@click.argument("name")
def init(name: str) -> None:
    """Begin a project of your own in the folder NAME: handlers, tests, a client, an image, values for the chart."""
    _check(name)
    _make(name)
    rows = [(_path(file, name), meaning) for file, meaning in _FILES.items()]
    width = max(len(path) for path, _ in rows)
    click.echo(f"Made {name}/ with\n")
    for path, meaning in rows:
        click.echo(f"  {path.ljust(width)}  {meaning}".rstrip())
    click.echo(
        f"\nNext, in a virtual environment:\n\n  cd {name} && pip install -e '.[dev]'\n  pytest\n"
        f"  bobrai dev --handlers {name}.tasks\n\nREADME.md goes on from there."
    )


def _check(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        nearest = "_".join(re.findall(r"[a-z0-9]+", name.lower())).lstrip("0123456789_")[:_LONGEST].rstrip("_")
        raise ConfigurationError(
            f"{name!r} cannot be the name of a project: up to {_LONGEST} lower-case letters, digits and single "
            f"underscores, a letter first, such as {nearest or 'my_tasks'!r}"
        )
    found = importlib.util.find_spec(name)
    is_module = found is not None and found.origin is not None  # a mere folder has none
    if is_module or name in _TAKEN or name in sys.stdlib_module_names or keyword.iskeyword(name):
        raise ConfigurationError(
            f"{name!r} is taken by Python, a library or a file of the project: choose another name, such as "
            f"'{name[: _LONGEST - 6]}_tasks'"
        )


def _make(name: str) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=Path.cwd()) as folder:
            made = Path(folder) / name
            made.mkdir()
            _fill(made, name)
            made.rename(name)  # takes the place of an empty folder, and of nothing else
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise ConfigurationError(
                f"{name!r} is there already and is no empty folder: choose another name, or move it away"
            ) from error
        raise ConfigurationError(f"{name!r} cannot be made here: {error.strerror}") from error


def _fill(folder: Path, name: str) -> None:
    templates = files(__package__) / "template"
    for file in _FILES:
        # An image of bobrAI has no folder that is called tests.
        template = file.removeprefix(".").removeprefix("tests/")
        text = (templates / f"{template}.template").read_text(encoding="utf-8")
        path = folder / _path(file, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("{{name}}", name).replace("{{version}}", __version__), encoding="utf-8")


def _path(file: str, name: str) -> str:
    return file.replace("package/", f"{name}/", 1)
