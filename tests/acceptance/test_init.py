"""`bobrai init`: what it makes works at once, as somebody who follows its README finds."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.acceptance.test_whole_path import FIRST_START_SECONDS
from tests.charts.helm import render
from tests.support.processes import PYTHONPATH, REPOSITORY, Processes
from tests.support.run_folder import RunFolder

# Its tests start a service of their own, and mypy reads all that they import.
pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("init")]

LONGEST = "a_name_that_is_as_long_as_a_name_may_be1"
WORKER = (REPOSITORY / "Dockerfile.worker").read_text()


def in_folder(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module in a folder, without anything of this run but where the product is."""
    foreign = ("BOBRAI_", "PYTEST_", "COV_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env={**clean, "PYTHONPATH": PYTHONPATH, **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def init(folder: Path, name: str) -> tuple[int, str, str]:
    """Begin a project; returns the exit code and what was said, on standard output and on standard error."""
    done = in_folder(folder, "-m", "bobrai", "init", name)
    return done.returncode, done.stdout, done.stderr


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def parent(run_folder: RunFolder) -> Iterator[Path]:
    """Where projects are made: not below pytest's own folder, which is closed to the user of the embedded server."""
    folder = run_folder.folder(f"init-{run_folder.free_port()}")
    assert init(folder, LONGEST)[0] == 0
    assert init(folder, "my_tasks")[0] == 0
    return folder


@pytest.fixture(scope="module")
def project(parent: Path) -> Path:
    return parent / "my_tasks"


@pytest.fixture(scope="module")
def dockerfile(project: Path) -> str:
    return (project / "Dockerfile").read_text()


def test_it_says_what_it_has_made_and_which_commands_come_next(tmp_path: Path) -> None:
    (tmp_path / "my_tasks").mkdir()  # an empty folder is in nobody's way
    code, said, _ = init(tmp_path, "my_tasks")
    assert code == 0
    listed, _, following = said.partition("\nNext, in a virtual environment:\n")
    assert {line.split()[0] for line in listed.splitlines()[2:]} == files_of(tmp_path / "my_tasks")
    readme = (tmp_path / "my_tasks" / "README.md").read_text()
    assert [command for command in ("pip install -e '.[dev]'", "pytest", "bobrai dev --handlers my_tasks.tasks")
            if command not in following or f"$ {command} " not in readme] == []  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["my_tasks"]


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("my-tasks", "my_tasks"), ("My Tasks!", "my_tasks"), ("9lives", "lives"), ("_", "my_tasks"), ("a__b", "a_b"),
        ("../up", "up"), ("", "my_tasks"), ("ñandú", "and"), ("a" * 41, "a" * 40), ("class", "class_tasks"),
        ("json", "json_tasks"), ("bobrai", "bobrai_tasks"), ("rich", "rich_tasks"), ("pytest", "pytest_tasks"),
    ],
)  # fmt: skip
def test_what_cannot_be_the_name_of_a_package_is_refused_in_one_line_with_a_better_one(
    name: str, instead: str, tmp_path: Path
) -> None:
    code, _, said = init(tmp_path, name)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith(f"bobrai: {name!r} ")
    assert said.endswith(f"such as {instead!r}\n")
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_is_there_is_touched(tmp_path: Path) -> None:
    (tmp_path / "my_tasks").mkdir()
    (tmp_path / "my_tasks" / "README.md").write_text("mine")
    (tmp_path / "other").write_text("mine")
    for name in ("my_tasks", "other"):
        code, _, said = init(tmp_path, name)
        assert (code, said.count("\n")) == (2, 1)
        assert f"{name!r} is there already" in said
    assert files_of(tmp_path) == {"my_tasks/README.md", "other"}
    assert (tmp_path / "my_tasks" / "README.md").read_text() == "mine"


def test_its_own_tests_pass(project: Path) -> None:
    done = in_folder(project, "-m", "pytest", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b5 passed\b", done.stdout), done.stdout


def test_dev_runs_its_handlers_and_its_client_gets_the_result(
    project: Path, processes: Processes, data_folder: Path
) -> None:
    processes.environment["PYTHONPATH"] = f"{project}{os.pathsep}{PYTHONPATH}"
    dev = processes.start("dev", "--handlers", "my_tasks.tasks", wait_ready=False).wait_ready(FIRST_START_SECONDS)
    done = in_folder(project, "submit.py", BOBRAI_URL=dev.url)
    assert (done.returncode, done.stdout) == (0, "task 1: number=17 total_cents=900\n"), done.stderr


@pytest.mark.parametrize("name", ["my_tasks", LONGEST])
@pytest.mark.parametrize("command", ["ruff check", "ruff format --check"])
def test_ruff_has_no_complaint(parent: Path, name: str, command: str) -> None:
    done = in_folder(parent / name, "-m", *command.split(), "--no-cache", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_has_no_complaint(project: Path) -> None:
    done = in_folder(project, "-m", "mypy", "--strict", "--follow-imports=silent", ".",
                     MYPYPATH=str(REPOSITORY / "services"))  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_values_give_the_chart_its_image_its_handlers_and_their_queues(project: Path) -> None:
    rendered = render(files=[project / "values.yaml"])
    worker = rendered.one("Deployment", "bobrai-worker-default").container("worker")
    variables = {each["name"]: each.get("value") for each in worker["env"]}
    declared = set(re.findall(r'queue="([^"]+)"', (project / "my_tasks" / "tasks.py").read_text()))
    assert worker["image"] == "registry.example.com/my_tasks:1"
    assert variables["BOBRAI_HANDLERS"] == "my_tasks.tasks"
    assert set(str(variables["BOBRAI_WORKER_QUEUES"]).split(",")) == {"default", *declared}
    timeouts = re.findall(r"timeout=(\d+)", (project / "my_tasks" / "tasks.py").read_text())
    drain = yaml.safe_load((project / "values.yaml").read_text())["workers"]["defaults"]["drainSeconds"]
    assert drain >= max(map(int, timeouts))


def test_its_readme_builds_the_image_that_the_values_name(project: Path) -> None:
    readme, values = ((project / name).read_text() for name in ("README.md", "values.yaml"))
    image = yaml.safe_load(values)["images"]["worker"]
    assert f"docker build -t {image['repository']}:{image['tag']} ." in readme
    assert f"docker push {image['repository']}:{image['tag']}\n" in readme


def test_its_image_is_the_worker_of_this_release_with_the_handlers_where_it_looks_for_them(dockerfile: str) -> None:
    chart = render().one("Deployment", "bobrai-worker-default").container("worker")["image"]
    assert re.search(r"^ARG WORKER=(.*)\nFROM \$\{WORKER\}$", dockerfile, re.MULTILINE)[1] == chart  # type: ignore[index]
    [searched] = re.findall(r"^ +PYTHONPATH=(\S+)", WORKER, re.MULTILINE)
    assert f"COPY my_tasks {searched}/my_tasks\nENV BOBRAI_HANDLERS=my_tasks.tasks\n" in dockerfile
    users = [re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1] for text in (dockerfile, WORKER)]
    assert users == ["65532:65532"] * 2


def test_its_image_can_copy_what_it_needs(project: Path, dockerfile: str) -> None:
    copied = re.findall(r"^COPY (\S+) ", dockerfile, re.MULTILINE)
    let_through = (project / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(let_through)
    assert all((project / name).exists() for name in copied)


def test_its_image_installs_what_its_pyproject_asks_for(project: Path, dockerfile: str) -> None:
    [command] = re.findall(r"^RUN python (-c .*) >/tmp/requirements.txt", dockerfile, re.MULTILINE)
    done = in_folder(project, *shlex.split(command.replace("/tmp/pyproject.toml", "pyproject.toml")))
    assert done.stdout == "bobrai[worker]>=0.1.0\n", done.stderr
