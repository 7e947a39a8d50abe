"""The HTTP server of every port: uvicorn, whose connections are bounded, and which leaves signals to the process.

In: an application, and Limits. Out: a server on sockets that ``listen`` made. Next: ``http``, one connection.
"""

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from bobrai.domain.errors import ConfigurationError
from bobrai.runtime import forks
from bobrai.runtime.acceptor import Acceptor
from bobrai.runtime.connections import Connections, Limits
from bobrai.runtime.http import HttpProtocol
from bobrai.settings.values import split_address
from bobrai.telemetry import foreign

_BACKLOG: Final = 2048  # connections that the kernel keeps until they are taken


def listen(bind: str, variable: str) -> socket.socket:
    """Return a listening socket for HOST:PORT; raises ConfigurationError naming the variable when it cannot be had."""
    host, port = split_address(bind)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {bind}: {error.strerror}; free the address or set {variable} to another one"
        ) from error
    forks.own([listener.fileno()])
    return listener


class HttpConfig(uvicorn.Config):
    """How one port is served; with a context, under TLS."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        drain_seconds: float,
        protocol: type[HttpProtocol] = HttpProtocol,
        context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(drain_seconds),
        )
        self.limits = limits
        self.context = context
        self.waits = Connections(limits)


class QuietServer(uvicorn.Server):
    """A server that leaves signals to the process's own Stop, and none of its connections to children."""

    config: HttpConfig

    def __init__(self, config: HttpConfig) -> None:
        super().__init__(config)
        self._acceptors: list[Acceptor] = []
        foreign.guard_libraries()  # a server that fails to say that it has started is not started
        forks.own_from(self._descriptors)

    def _descriptors(self) -> Iterator[int]:
        for connection in list(self.server_state.connections):
            transport = connection.transport
            if transport is not None and (connected := transport.get_extra_info("socket")) is not None:
                yield connected.fileno()
        for acceptor in self._acceptors:
            yield from acceptor.descriptors()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        await self.lifespan.startup()
        config, loop = self.config, asyncio.get_running_loop()
        self.servers = []
        for sock in sockets or ():
            if config.context is None:
                self.servers.append(await loop.create_server(self._connection, sock=sock, backlog=_BACKLOG))
            else:
                self._acceptors.append(Acceptor(sock, config.context, config.waits, self._connection))
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and let open requests finish."""
        for acceptor in self._acceptors:
            await acceptor.close()
        await super().shutdown(sockets)

    def renew_connections(self) -> None:
        """Close connections that are idle, and the others once they are answered."""
        for connection in list(self.server_state.connections):
            connection.close_soon()  # type: ignore[union-attr]

    def _connection(self) -> asyncio.Protocol:
        config = self.config
        return config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=self.server_state, app_state=self.lifespan.state
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install nothing."""
        yield
