"""What a worker and the process of an isolated task say to each other, over a pair of sockets.

In and out: messages, each in a frame of its length and msgpack. The settings come first, pickled: they are what this
process has read already, and hold what the environment of the other may not.
"""

import asyncio
import pickle
import socket
import struct
from typing import Final, TypeAlias

import msgspec

from bobrai.domain.task import Claim, Outcome
from bobrai.settings import Settings

_LENGTH: Final = struct.Struct(">I")


class Run(msgspec.Struct, tag=True):
    """To the process: run this attempt. It may reserve ``spare_bytes`` of memory; None is no limit."""

    claim: Claim
    worker_id: int
    spare_bytes: int | None


class Stop(msgspec.Struct, tag=True):
    """To the process: end the attempt, because its user wishes so, or else because the worker ends."""

    cancelled: bool


class Ready(msgspec.Struct, tag=True):
    """To the worker: the handlers are imported."""


class Progress(msgspec.Struct, tag=True):
    """To the worker: what a handler reports of its attempt, which may be over."""

    task_id: int
    attempt: int
    text: str


class Ended(msgspec.Struct, tag=True):
    """To the worker: how the attempt ended. None: its claim was lost. ``written``: the outcome is committed.

    ``leftovers`` says whether something that a handler has started may go on in the process, ``is_worn`` whether the
    next one would find it changed, ``resident_bytes`` what it takes now, and ``peak_bytes`` what it took at most during
    the attempt; 0 where that cannot be known.
    """

    outcome: Outcome | None
    written: bool = False
    leftovers: bool = False
    is_worn: bool = False
    resident_bytes: int = 0
    peak_bytes: int = 0


Message: TypeAlias = Run | Stop | Ready | Progress | Ended
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class Channel:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, connection: socket.socket) -> "Channel":
        """Return the end that is this socket."""
        return cls(*await asyncio.open_connection(sock=connection))

    def send(self, message: Message) -> None:
        """Send soon; what the other end does not live to read is lost."""
        data = _encoder.encode(message)
        self._writer.write(_LENGTH.pack(len(data)) + data)

    async def receive(self) -> Message | None:
        """Return the next message; None when the other end is gone, or what comes is not from it."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return _decoder.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError, msgspec.DecodeError):
            return None

    def close(self) -> None:
        """Let go of it; the other end hears of that."""
        self._writer.close()


def send_settings(connection: socket.socket, settings: Settings) -> None:
    """Send the first frame."""
    data = pickle.dumps(settings)
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive_settings(connection: socket.socket) -> Settings:
    """Return what the first frame says; raises EOFError when the other end is gone."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    settings: Settings = pickle.loads(_exactly(connection, length))  # noqa: S301 - from the worker that started us
    return settings


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data
