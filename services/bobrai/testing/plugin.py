"""The pytest plugin: fixtures for people who test their handlers, found by pytest where bobrAI is installed.

In: the handler modules that the project's pytest settings name (``bobrai_handlers``), or a test's marker. Out:
``bobrai_service`` and ``bobrai_client``. Nothing is loaded before a test asks for one.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bobrai.client import Client
    from bobrai.testing.service import Service


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the setting."""
    parser.addini(
        "bobrai_handlers", "Modules that declare bobrAI handlers, for bobrai_service.", type="args", default=[]
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "bobrai(*handlers, **settings): for the bobrai_service of this test, modules of handlers, by name or "
        'themselves, or handlers, and settings by group, such as worker={"concurrency": 1}',
    )


@pytest.fixture(scope="session")
def bobrai_postgres(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an embedded PostgreSQL, for the whole run; it is made once for the project, in pytest's cache."""
    from bobrai.testing.service import postgres

    cache = getattr(request.config, "cache", None)  # which a plugin of pytest's own brings
    if cache is None:
        raise pytest.UsageError("bobrai_postgres keeps its data in pytest's cache: run without -p no:cacheprovider")
    with postgres(cache.mkdir("bobrai")) as url:
        yield url


@pytest.fixture
def bobrai_service(request: pytest.FixtureRequest, bobrai_postgres: str) -> Iterator["Service"]:
    """The whole service with the project's handlers, or those that the marker ``bobrai`` names, on a new database."""
    from bobrai.testing.service import service

    marker = request.node.get_closest_marker("bobrai")
    named = list(marker.args) if marker is not None and marker.args else request.config.getini("bobrai_handlers")
    settings: dict[str, Any] = {} if marker is None else marker.kwargs
    modules = list(dict.fromkeys(map(_module, named)))
    with service(bobrai_postgres, modules, **settings) as running:
        yield running


def _module(named: Any) -> str:
    """Return the name of a module, of one that is given itself, or of a handler's."""
    if isinstance(named, str):
        return named
    return str(named.__name__ if isinstance(named, ModuleType) else named.__module__)


@pytest.fixture
def bobrai_client(bobrai_service: "Service") -> "Client":
    """A client of ``bobrai_service``."""
    return bobrai_service.client
