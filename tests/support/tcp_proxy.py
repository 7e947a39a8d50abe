"""A TCP proxy before any server, whose line a test can cut, block, slow down or half-close.

It runs on an event loop in a thread of its own, so that sync and async tests steer it with the same plain calls.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from tests.support.background import BackgroundLoop

T = TypeVar("T")

CHUNK_BYTES = 64 * 1024
# closing with a zero linger time sends RST, as a killed machine's kernel or a firewall does
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _Link:
    """One client's connection and its counterpart to the server."""

    def __init__(self, proxy: "TcpProxy", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.client_reader, self.client_writer = reader, writer
        self.server_writer: asyncio.StreamWriter | None = None
        self.half_closed = False

    async def serve(self) -> None:
        await self.proxy._flowing.wait()
        try:
            server_reader, self.server_writer = await asyncio.open_connection(*self.proxy.target)
        except OSError:
            self.reset()
            return
        pumps = (
            asyncio.create_task(self._pump(self.client_reader, self.server_writer)),
            asyncio.create_task(self._pump(server_reader, self.client_writer)),
        )
        try:
            await asyncio.gather(*pumps)
        except OSError:
            self.reset()
        finally:
            for pump in pumps:
                pump.cancel()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes one way; each chunk leaves `latency` seconds after it came, in order."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(maxsize=64)

        async def receive() -> None:
            chunk: bytes | OSError = b"something"
            while isinstance(chunk, bytes) and chunk:
                try:
                    chunk = await reader.read(CHUNK_BYTES)
                except OSError as error:
                    chunk = error
                await chunks.put((loop.time() + self.proxy._latency_seconds, chunk))

        receiving = asyncio.create_task(receive())
        try:
            while True:
                due_at, chunk = await chunks.get()
                await asyncio.sleep(max(due_at - loop.time(), 0))
                await self.proxy._flowing.wait()
                if isinstance(chunk, OSError):
                    raise chunk
                client_heard_the_end = writer is self.client_writer and self.half_closed
                if not chunk:
                    if writer.can_write_eof() and not client_heard_the_end:
                        writer.write_eof()
                    return
                if client_heard_the_end:
                    continue
                self.proxy.bytes_carried += len(chunk)
                writer.write(chunk)
                await writer.drain()
        finally:
            receiving.cancel()

    def half_close(self) -> None:
        if not self.half_closed and self.client_writer.can_write_eof():
            self.half_closed = True
            self.client_writer.write_eof()

    def reset(self) -> None:
        for writer in (self.client_writer, self.server_writer):
            if writer is not None:
                raw: socket.socket = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                writer.transport.abort()

    def close(self) -> None:
        for writer in (self.client_writer, self.server_writer):
            if writer is not None:
                writer.close()


class TcpProxy:
    """Listens on a port of its own and carries bytes to the target; starts in mode "pass"."""

    def __init__(self, target_host: str, target_port: int, port: int) -> None:
        self.target = (target_host, target_port)
        self.host, self.port = "127.0.0.1", port
        self.bytes_carried = 0
        self.accepted = 0
        self._latency_seconds = 0.0
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._thread = BackgroundLoop(f"tcp-proxy-{port}")
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread.run(self._listen())

    def url(self, url: str) -> str:
        """The same address, through this proxy."""
        parts = urlsplit(url)
        login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return urlunsplit(parts._replace(netloc=f"{login}{self.host}:{self.port}"))

    @property
    def open_connections(self) -> int:
        """How many client connections are open now."""
        return len(self._links)

    def pass_through(self) -> None:
        """The normal mode: undo refuse, blackhole and latency; bytes held back flow again."""
        self._latency_seconds = 0.0
        self._call(self._flowing.set)
        self._thread.run(self._listen())

    def cut(self) -> int:
        """Reset every open connection now; new ones are served. Returns how many were cut."""
        return self._call(self._reset_all)

    def refuse(self) -> None:
        """Reset every open connection and refuse new ones, until `pass_through`."""
        self._thread.run(self._stop_listening())
        self.cut()

    def blackhole(self) -> None:
        """Connections stay open, new ones are accepted, and no byte arrives, until `pass_through`."""
        self._call(self._flowing.clear)

    def latency(self, seconds: float) -> None:
        """Every byte arrives so much later, each way."""
        self._latency_seconds = seconds

    def half_close(self) -> None:
        """Tell every client that the server has finished sending, while its own bytes still get through."""
        self._call(self._half_close_all)

    def close(self) -> None:
        """Stop for good."""
        self.refuse()
        self._thread.close()

    def _call(self, action: Callable[[], T]) -> T:
        async def act() -> T:
            return action()

        return self._thread.run(act())

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, self.host, self.port, reuse_address=True)

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, reader, writer)
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._links[link] = task
        try:
            await link.serve()
        finally:
            self._links.pop(link, None)
            link.close()

    def _reset_all(self) -> int:
        links = list(self._links.items())
        for link, task in links:
            link.reset()
            task.cancel()
        return len(links)

    def _half_close_all(self) -> None:
        for link in self._links:
            link.half_close()
