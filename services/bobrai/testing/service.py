"""The whole service in the test's process: API, dispatcher and worker in a thread, on an embedded PostgreSQL.

In: modules of handlers. Out: a Service with its URL and a client. Each has a database of its own; the server and the
template that databases are copied from stay, in a folder, for the next tests.
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bobrai.cli import dev
from bobrai.client import AsyncClient, Client
from bobrai.domain.errors import ConfigurationError
from bobrai.handlers import registry
from bobrai.runtime.lifecycle import Stop
from bobrai.settings import Settings, load
from bobrai.store import scratch
from bobrai.store.embedded import EmbeddedPostgres

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_QUICK: dict[str, dict[str, Any]] = {
    "api": {"bind": "127.0.0.1:0", "wait_tick_seconds": 0.05},
    "dispatcher": {"reap_seconds": 0.5, "poll_seconds": 0.5},
    "worker": {"heartbeat_seconds": 0.5, "drain_seconds": 2.0},
}


class Service:
    """A running service; ``database_url`` is that of its own database."""

    def __init__(self, url: str, database_url: str) -> None:
        self.url = url
        self.database_url = database_url
        self.client = Client(url)

    def async_client(self) -> AsyncClient:
        """Return another client, for the test's event loop; close it there."""
        return AsyncClient(self.url)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run an embedded PostgreSQL in a folder, which keeps the template; gives its address."""
    server = EmbeddedPostgres(folder)
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def service(server_url: str, handlers: list[str], **settings: dict[str, Any]) -> Iterator[Service]:
    """Run a service with these modules of handlers on a new database of a server, and drain it afterwards.

    ``settings`` are by group, as ``worker={"concurrency": 1}``; no variable of the environment counts. Raises
    ConfigurationError for modules that cannot be imported, and for wrong settings.
    """
    database_url = asyncio.run(scratch.create(server_url))
    try:
        running = _Running(_settings(database_url, handlers, settings))
        found = Service(running.start(), database_url)
        try:
            yield found
        finally:
            found.client.close()
            running.stop()
    finally:
        asyncio.run(scratch.drop(server_url, database_url))


def _settings(database_url: str, handlers: list[str], wishes: dict[str, dict[str, Any]]) -> Settings:
    groups = {name: {**_QUICK.get(name, {}), **wishes.get(name, {})} for name in {*_QUICK, *wishes}}
    groups["database"] = {"url": database_url, **wishes.get("database", {})}
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("BOBRAI_")}
    try:
        return load(**groups, top={"handlers": ",".join(handlers)})
    finally:
        os.environ.update(kept)


class _Running:
    """The thread in which the rooms run."""

    def __init__(self, settings: Settings) -> None:
        self._registry = registry.load(settings.handlers)
        self._settings = dev.in_one_process(settings, self._registry)
        self._thread = threading.Thread(target=self._run, name="bobrai-service", daemon=True)
        self._listening = threading.Event()
        self._port = 0
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Stop | None = None

    def start(self) -> str:
        """Return the service's URL once it listens; raises what has kept it from that."""
        self._thread.start()
        if not self._listening.wait(_START_SECONDS):
            raise ConfigurationError(f"the service has not started within {_START_SECONDS:g} s")
        if self._error is not None:
            raise self._error
        return f"http://127.0.0.1:{self._port}"

    def stop(self) -> None:
        """Let what runs finish, and end the thread; raises what the service has ended of."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.request, "the test is over")
        self._thread.join(_STOP_SECONDS)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            self._error = error
        finally:
            self._listening.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), Stop()
        await dev.serve(self._settings, self._registry, self._stop, self._on_listening)

    def _on_listening(self, port: int, _waits_for: str) -> None:
        self._port = port
        self._listening.set()
