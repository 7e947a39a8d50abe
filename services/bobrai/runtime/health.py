"""The small port of worker and dispatcher: /livez, /readyz and /metrics.

In: two callables that say how the process is. Out: HTTP answers, from a thread with its own event loop, so that a
handler that blocks the main loop does not make the process look dead before its time.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bobrai.runtime import event_loop
from bobrai.runtime.connections import Limits
from bobrai.runtime.server import HttpConfig, QuietServer, listen
from bobrai.telemetry import exposition

# A kubelet and a Prometheus or two are all who should come.
_LIMITS: Final = Limits(connections=256, keep_alive_seconds=30, last_call_seconds=0, all_heads_bytes=1024 * 1024)


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
        self._server = QuietServer(HttpConfig(app, _LIMITS, drain_seconds=1))
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
        body, content_type = exposition.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})
