"""The leanest HTTP/1.1 client that still checks every answer: ready-made bytes go out, a status and a body come back.

In: bytes for one keep-alive connection. Out: a callback per answer. It understands what uvicorn sends (Content-Length,
no chunks) and refuses the rest. Next: `load.py` (as fast as possible) and `probe.py` (one request at a time).
"""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

_CONTENT_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def request(method: str, path: str, body: Any = None, token: str = "") -> bytes:
    """The bytes of one request; `body` is sent as compact JSON, `token` as what the client shows."""
    content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return f"{head}\r\n".encode() + content


class Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, on_answer: Callable[["Connection", bytes, bytes], None]) -> None:
        self._on_answer = on_answer
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None
        self.sent_at = 0.0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; nothing is sent until `send`."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember it: the owner decides whether that was an error."""
        self.lost = True

    def send(self, content: bytes) -> None:
        """Send one request."""
        self._transport.write(content)  # type: ignore[union-attr]

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Call back with status and body once the answer is complete."""
        if self._received:
            data = self._received + data
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            length = _CONTENT_LENGTH.search(data, 0, end)
            if length is None:
                raise ValueError(f"an answer without Content-Length: {data[:200]!r}")
            if len(data) >= end + 4 + int(length[1]):
                self._received = b""
                self._on_answer(self, data[9:12], data[end + 4 :])
                return
        self._received = data


class Client:
    """A pool of connections for callers that await each answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []
        self._waiting: dict[Connection, asyncio.Future[tuple[bytes, bytes]]] = {}

    async def call(self, content: bytes) -> tuple[bytes, bytes]:
        """Send one request on a free connection and return status and body."""
        loop = asyncio.get_running_loop()
        while self._idle and self._idle[-1].lost:
            self._idle.pop()
        if self._idle:
            connection = self._idle.pop()
        else:
            _, connection = await loop.create_connection(lambda: Connection(self._answered), "127.0.0.1", self._port)
        future = self._waiting[connection] = loop.create_future()
        connection.send(content)
        return await future

    def _answered(self, connection: Connection, status: bytes, body: bytes) -> None:
        self._idle.append(connection)
        self._waiting.pop(connection).set_result((status, body))

    def close(self) -> None:
        """Close all connections."""
        for connection in self._idle:
            connection.close()
