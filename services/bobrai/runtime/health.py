"""The small port of worker and dispatcher: /livez, /readyz and /metrics.

In: two callables that say how the process is. Out: HTTP answers, from a thread with its own event loop, so that a
handler that blocks the main loop does not make the process look dead before its time.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bobrai.domain.errors import ConfigurationError
from bobrai.runtime import event_loop, forks
from bobrai.settings.values import split_address
from bobrai.telemetry import foreign, metrics


def listen(bind: str, variable: str) -> socket.socket:
    """Return a listening socket for HOST:PORT; raises ConfigurationError naming the variable when it cannot be had."""
    host, port = split_address(bind)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {bind}: {error.strerror}; free the address or set {variable} to another one"
        ) from error
    forks.own([listener.fileno()])
    return listener


class QuietServer(uvicorn.Server):
    """A uvicorn server that leaves signals to the process's own Stop, and none of its connections to children."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        foreign.guard_libraries()  # a server that fails to say that it has started is not started
        forks.own_from(self._descriptors)

    def _descriptors(self) -> Iterator[int]:
        for connection in list(self.server_state.connections):
            transport = connection.transport
            if transport is not None and (connected := transport.get_extra_info("socket")) is not None:
                yield connected.fileno()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install nothing."""
        yield


class HealthServer:
    """Serves the health port in a daemon thread."""

    def __init__(
        self, bind: str, variable: str, *, live: Callable[[], bool], ready: Callable[[], Mapping[str, bool]]
    ) -> None:
        self._live = live
        self._ready = ready
        self._socket = listen(bind, variable)
        app = Starlette(
            routes=[
                Route("/livez", self._livez),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
            ]
        )
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=30, server_header=False
        )
        self._server = QuietServer(config)
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop to answer; returns within two seconds."""
        self._server.should_exit = True
        self._thread.join(timeout=2)
        self._socket.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=event_loop.new) as runner:
            runner.run(self._server.serve(sockets=[self._socket]))

    async def _livez(self, _request: Request) -> Response:
        live = self._live()
        return JSONResponse({"live": live}, status_code=200 if live else 503)

    async def _readyz(self, _request: Request) -> Response:
        facts = dict(self._ready())
        ready = all(facts.values())
        return JSONResponse({"ready": ready, "checks": facts}, status_code=200 if ready else 503)

    async def _metrics(self, request: Request) -> Response:
        body, content_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})
