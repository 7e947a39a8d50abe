"""What a change costs: our code is the last layer, dependencies lie under it; dev images start anew by themselves."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.images.engine import REPOSITORY, Containers, Image
from tests.support.databases import Database
from tests.support.eventually import eventually_sync
from tests.support.rabbitmq import VirtualHost

CONTEXT = ["pyproject.toml", "README.md", "LICENSE", ".dockerignore", "Dockerfile.api", "Dockerfile.worker"]
FOLDERS = ["requirements", "services", "k8s/dev"]


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of what the images are built from, in which our code differs."""
    for name in CONTEXT:
        shutil.copy2(REPOSITORY / name, tmp_path / name)
    for name in FOLDERS:
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    errors = tmp_path / "services" / "bobrai" / "domain" / "errors.py"
    errors.write_text(errors.read_text() + f"\n# changed: {tmp_path}\n")
    return tmp_path


def test_a_change_of_code_rebuilds_the_last_layer_alone(image: Image, changed: Path) -> None:
    name = image.reference.removeprefix("bobrai-").partition(":")[0]
    again = Image.build(f"bobrai-{name}:changed", f"Dockerfile.{name}", changed)
    try:
        before, after = image.layers(), again.layers()
    finally:
        again.remove()
    assert len(before) == len(after) > 3
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]


@pytest.mark.parametrize("name", ["api", "worker"])
def test_the_dev_image_starts_anew_when_a_file_is_put_into_it(
    engine: str,
    containers: Containers,
    database: Database,
    rabbitmq: VirtualHost,
    free_port: Callable[[], int],
    name: str,
) -> None:
    dev = Image.build(f"bobrai-{name}:dev-tested", f"Dockerfile.{name}", target="dev")
    port = free_port()
    bind = {"api": "BOBRAI_API_BIND", "worker": "BOBRAI_WORKER_HEALTH_BIND"}[name]
    environment = {
        "BOBRAI_DATABASE_URL": database.url,
        "BOBRAI_RABBITMQ_URL": rabbitmq.url,
        bind: f"127.0.0.1:{port}",
    }
    container = containers.start(dev, environment=environment, options=["--tmpfs", "/tmp"], port=port)
    container.wait_for("/readyz")
    assert b'version="7.7.7"' not in container.get("/metrics")[1]
    source = (REPOSITORY / "services" / "bobrai" / "__init__.py").read_text()
    changed = re.sub(r"(?m)^__version__ = .*$", '__version__ = "7.7.7"', source)
    container.put("/tmp/app/bobrai/__init__.py", changed)

    def is_new() -> bool:
        return b'version="7.7.7"' in container.get("/metrics")[1]

    eventually_sync(is_new, 20, message="the changed source serves")
    container.signal("TERM")
    assert container.wait(20) == 0


def test_the_dev_image_of_the_worker_runs_other_commands_once(engine: str, containers: Containers) -> None:
    dev = Image.build("bobrai-worker:dev-tested", "Dockerfile.worker", target="dev")
    code, log = containers.run(dev, "smoke", "http://127.0.0.1:9", "--timeout", "0.5", options=["--tmpfs", "/tmp"])
    assert code == 1
    assert "Connection refused" in log
