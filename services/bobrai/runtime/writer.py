"""A transport that sends an answer at once, and closes so that the client can read it.

In: what uvicorn writes. Out: one system call per round of the event loop, and polite ends.
"""

import asyncio
import contextlib
import fcntl
import sys
import termios
from typing import Any, Protocol


class Peer(Protocol):
    """What a writer must know of its connection."""

    @property
    def sends(self) -> bool:
        """Whether the client may be sending still."""

    @property
    def holds(self) -> bool:
        """Whether bytes that were read have not been looked at."""

    def parting(self) -> None:
        """Note that the connection is closed, and that the client has yet to take something or to end."""


class Writer:
    """A transport that sends what is written within one round of the event loop together, and closes politely."""

    def __init__(self, transport: Any, connection: Peer, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._connection = connection
        self._loop = loop
        self._unwritten: list[bytes] = []
        self._closed = False
        self.is_tls = transport.get_extra_info("sslcontext") is not None

    def write(self, data: bytes) -> None:
        """Send the data when this round ends."""
        # An answer is two messages, and so two system calls where one will do: they cost more than everything that
        # Python does for a small answer.
        if not self._unwritten:
            self._loop.call_soon(self._flush)
        self._unwritten.append(data)

    def close(self) -> None:
        """Send what is held, then close.

        A client that still sends would lose the answer if its bytes met a closed socket: it is heard out for a while.
        """
        self._flush()
        if self._closed:
            return
        self._closed = True
        was_open = not self._transport.is_closing()
        heard_out = was_open and self._connection.sends and (self.is_tls or self._transport.can_write_eof())
        if not heard_out:
            self._transport.close()
        else:
            if not self.is_tls:  # TLS cannot be closed by halves; there the answer's length says where it ends
                self._transport.write_eof()
            self._transport.resume_reading()
        # Saying goodbye in TLS takes two.
        if heard_out or (self.is_tls and was_open) or self._transport.get_write_buffer_size():
            self._connection.parting()

    def is_closing(self) -> bool:
        """Whether nothing further can be sent."""
        return self._closed or self._transport.is_closing()

    def resume_reading(self) -> None:
        """Read again, unless what was read has not been looked at."""
        if not self._connection.holds:
            self._transport.resume_reading()

    def untaken(self) -> int:
        """Return how many bytes the client's machine has not acknowledged, those that the kernel keeps included."""
        size = sum(map(len, self._unwritten)) + int(self._transport.get_write_buffer_size())
        connected = self._transport.get_extra_info("socket")
        if connected is not None and connected.fileno() >= 0:
            with contextlib.suppress(OSError):
                size += int.from_bytes(fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
        return size

    def _flush(self) -> None:
        if self._unwritten:
            data, self._unwritten = b"".join(self._unwritten), []
            if not self._transport.is_closing():  # else it was cut off since it was written
                self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
