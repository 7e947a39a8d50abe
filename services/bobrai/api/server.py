"""The API's HTTP server, and how much its clients may take.

In: the application and its settings. Out: a server for ``main``.
"""

import socket
from collections.abc import Callable

from starlette.types import ASGIApp

from bobrai.runtime.connections import Limits
from bobrai.runtime.server import HttpConfig, QuietServer
from bobrai.settings.api import ApiSettings


class HttpServer(QuietServer):
    """A server that says when it takes connections."""

    def __init__(self, app: ASGIApp, settings: ApiSettings, on_started: Callable[[], None]) -> None:
        limits = Limits(settings.max_connections, settings.keep_alive_seconds)
        super().__init__(HttpConfig(app, limits, settings.drain_seconds))
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._on_started()
