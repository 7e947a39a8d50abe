"""A small application behind the product's HTTP server, in a thread, and sockets to it."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from bobrai.runtime import event_loop
from bobrai.runtime.connections import Limits
from bobrai.runtime.server import HttpConfig, QuietServer, listen
from tests.support.eventually import eventually_sync

LONG = 600.0  # seconds: never, in a test
PATIENT = Limits(
    connections=1000,
    keep_alive_seconds=LONG,
    head_seconds=LONG,
    rest_seconds=LONG,
    close_seconds=LONG,
    stall_seconds=LONG,
    last_call_seconds=0,
)
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
CHUNKED = b"POST /body HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
BIG = 8_000_000


class App:
    """Answers with the number of bytes that it read: at /body all of them, elsewhere none; at /big with many bytes."""

    def __init__(self) -> None:
        self.hold: asyncio.Event | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, scope["path"] == "/body"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message["body"])
            more = message["more_body"]
        if scope["path"] == "/held":
            self.loop, self.hold = asyncio.get_running_loop(), asyncio.Event()
            await self.hold.wait()
        out = b"x" * BIG if scope["path"] == "/big" else b"%d" % size
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(out))]})
        await send({"type": "http.response.body", "body": out})

    def let_go(self) -> None:
        eventually_sync(lambda: self.hold)
        assert self.loop is not None
        assert self.hold is not None
        self.loop.call_soon_threadsafe(self.hold.set)


class Served:
    def __init__(self, limits: Limits, drain_seconds: float) -> None:
        self.app = App()
        self.listener = listen("127.0.0.1:0", "X")
        self.server = QuietServer(HttpConfig(self.app, limits, drain_seconds))
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=event_loop.new) as runner:
            runner.run(self.server.serve(sockets=[self.listener]))

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.listener.getsockname())
        client.settimeout(60)
        return client

    def ask(self, *parts: bytes) -> bytes:
        """Send the parts in turn, each once the server has read the last, and return all that comes until it closes."""
        with closing(self.connect()) as client:
            for part in parts:
                client.sendall(part)
            return received(client)

    @property
    def open(self) -> int:
        return len(self.server.server_state.connections)


@contextmanager
def served(limits: Limits, drain_seconds: float = 1) -> Iterator[Served]:
    here = Served(limits, drain_seconds)
    here.thread.start()
    try:
        yield here
    finally:
        here.server.should_exit = True
        here.thread.join(30)
        here.listener.close()


def received(client: socket.socket, until: Callable[[bytes], bool] = lambda _: False) -> bytes:
    got = b""
    while not until(got):
        part = client.recv(65536)
        if not part:
            break
        got += part
    return got
