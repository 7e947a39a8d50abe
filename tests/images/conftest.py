"""Fixtures of the image tests: both images built once per run, and containers that are gone afterwards."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.images.engine import Containers, EngineMissing, Image, find_engine

# a first build fetches every dependency
CASE_SECONDS = 1500
HERE = Path(__file__).parent
VERSION = "0.0.0+tested"
REVISION = "f" * 40
CONTAINERS = pytest.StashKey[Containers]()
SIZES: dict[str, str] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every case of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.images)
            item.add_marker(pytest.mark.timeout(CASE_SECONDS))
            item.add_marker(pytest.mark.xdist_group("images"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was built and how large it is."""
    if SIZES:
        terminalreporter.section("images")
        for name, text in SIZES.items():
            terminalreporter.line(f"{name}: {text}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the containers' logs beside the failure."""
    report = yield
    containers = item.stash.get(CONTAINERS, None)
    if report.failed and report.when == "call" and containers is not None:
        report.sections.extend(containers.report())
    return report


@pytest.fixture(scope="session")
def engine() -> str:
    """The engine's version; fails where none answers."""
    try:
        return find_engine()
    except EngineMissing as error:
        return pytest.fail(str(error), pytrace=False)


def built(name: str) -> Image:
    """The image of one Dockerfile, its size noted for the end of the run."""
    # the tag stays, so that a later run finds its layers
    image = Image.build(
        f"bobrai-{name}:tested", f"Dockerfile.{name}", arguments={"VERSION": VERSION, "REVISION": REVISION}
    )
    history = image.inspect()
    ours = own_bytes(image)
    SIZES[f"bobrai-{name}"] = (
        f"{history['Size'] / 1e6:.0f} MB in all, base included; ours {sum(ours) / 1e6:.1f} MB: "
        f"dependencies {ours[0] / 1e6:.1f} MB, code {ours[1] / 1e6:.1f} MB"
    )
    return image


def own_bytes(image: Image) -> tuple[int, int]:
    """Bytes on disk of the dependencies and of our own package."""
    sizes = image.shell("du -sb /opt/bobrai; du -sb /opt/bobrai/lib/python3*/site-packages/bobrai").splitlines()
    everything, code = (int(line.split()[0]) for line in sizes)
    return everything - code, code


@pytest.fixture(scope="session")
def api_image(engine: str) -> Image:
    """The image of Dockerfile.api."""
    return built("api")


@pytest.fixture(scope="session")
def worker_image(engine: str) -> Image:
    """The image of Dockerfile.worker."""
    return built("worker")


@pytest.fixture(params=["api", "worker"])
def image(request: pytest.FixtureRequest) -> Image:
    """Both images, one after the other."""
    found: Image = request.getfixturevalue(f"{request.param}_image")
    return found


@pytest.fixture
def containers(request: pytest.FixtureRequest, engine: str) -> Iterator[Containers]:
    """Starts containers; put what all of them need into `containers.environment`."""
    containers = Containers()
    request.node.stash[CONTAINERS] = containers
    yield containers
    containers.close()
