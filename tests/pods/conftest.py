"""Fixtures of the tests that run a whole release in containers: every pod of it, as its manifests say."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charts.helm import render
from tests.images.conftest import api_image, engine, worker_image
from tests.images.engine import Image
from tests.pods.node import Node
from tests.pods.release import Release

__all__ = ["api_image", "engine", "worker_image"]

HERE = Path(__file__).parent
# the first run pulls the images of PostgreSQL, PgBouncer and RabbitMQ
CASE_SECONDS = 1500
FIGURES: list[str] = []
GREET = """
from bobrai import task

@task("greet")
def greet(payload: str) -> str:
    return f"Hello, {payload}!"
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every case of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.pods)
            item.add_marker(pytest.mark.timeout(CASE_SECONDS))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured."""
    if FIGURES:
        terminalreporter.section("pods")
        for figure in FIGURES:
            terminalreporter.line(figure)


@pytest.fixture(scope="session")
def release(api_image: Image, worker_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """The release that the default values make, all of it ready."""
    if os.geteuid() != 0:
        pytest.fail("only root can give volumes to a pod's group; run `make test-pods` as root", pytrace=False)
    values = {
        "images": {"api": {"reference": api_image.reference}, "worker": {"reference": worker_image.reference}},
        "handlers": {"inline": {"tasks.py": GREET}},
        "rabbitmq": {"startDelaySeconds": 0},
    }
    with Node(render(values), tmp_path_factory.mktemp("node")) as node:
        release = Release(node)
        release.bring_up()
        yield release
