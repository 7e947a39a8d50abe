"""Takes connections over TLS, in the way that a server of asyncio takes them without it.

In: a listening socket and the context of ``certificates``. Out: connections whose handshake went well, for ``http``. A
handshake under way counts as a connection, so that who sends nothing, or no TLS, makes room as everybody does.
"""

import asyncio
import itertools
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Final

from bobrai.runtime.connections import Connections
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_AT_ONCE: Final = 32
_FULL_PAUSE_SECONDS: Final = 0.2  # when the process has no descriptor left


class _Handshake:
    """A connection whose client has yet to prove that it speaks TLS."""

    def __init__(self, connected: socket.socket, address: str) -> None:
        self.socket = connected
        self.address = address

    def abort(self) -> None:
        """End it: the handshake finds its socket closed."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            log.debug("tls.handshake_failed", error=str(error))  # its client was quicker

    end = too_slow = crowded_out = abort

    def unsent(self) -> int:
        """Return how many bytes the client has not taken: none that matter."""
        return 0


class Acceptor:
    """One listening socket whose connections are under TLS; closed like a server of asyncio."""

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        waits: Connections,
        make: Callable[[], asyncio.Protocol],
    ) -> None:
        self._context = context
        self._waits = waits
        self._make = make
        self._handshakes: dict[asyncio.Task[None], _Handshake] = {}
        listener.settimeout(0)
        self._task = asyncio.create_task(self._accept(listener), name="tls-acceptor")

    async def close(self) -> None:
        """Take no more connections, and end those that are not ready."""
        self._task.cancel()
        for handshake in self._handshakes.values():
            handshake.abort()
        await asyncio.wait([self._task, *self._handshakes])

    def descriptors(self) -> Iterator[int]:
        """Yield the descriptors of connections that are not ready."""
        for handshake in list(self._handshakes.values()):
            yield handshake.socket.fileno()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in itertools.count(1):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # there may always be another one
            try:
                connected, peer = await loop.sock_accept(listener)
            except OSError as error:  # too many open files, or a client that is gone already
                log.debug("tls.handshake_failed", error=str(error))
                await asyncio.sleep(_FULL_PAUSE_SECONDS)
                continue
            handshake = _Handshake(connected, str(peer[0]) if isinstance(peer, tuple) else "")
            task = loop.create_task(self._shake_hands(handshake))
            self._handshakes[task] = handshake
            task.add_done_callback(self._handshakes.pop)

    async def _shake_hands(self, handshake: _Handshake) -> None:
        limits = self._waits.limits
        self._waits.opened(handshake)
        try:
            handshake.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make,
                handshake.socket,
                ssl=self._context,
                ssl_handshake_timeout=limits.head_seconds,
                ssl_shutdown_timeout=limits.close_seconds,
            )
        except OSError as error:  # whatever a stranger may send
            log.debug("tls.handshake_failed", error=str(error))
            handshake.socket.close()
        finally:
            self._waits.lost(handshake)
