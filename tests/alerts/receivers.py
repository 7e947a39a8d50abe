"""The other ends of messages: a Telegram and a mail server on this machine that keep what they are told."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from email import message_from_string, policy
from email.message import EmailMessage
from typing import Any

HOST = "127.0.0.1"


class Telegram:
    """Telegram's Bot API as far as Alertmanager uses it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        """The path, which carries the bot's token, and the body of each call."""
        self.port = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Telegram"]:
        """Answer inside the block."""
        server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.partition(":")[2]) for line in head.lower().splitlines() if line.startswith("content-length:")
        )
        self.calls.append((head.split()[1], json.loads(await reader.readexactly(length))))
        answer = b'{"ok": true, "result": {"message_id": 1, "date": 1, "chat": {"id": 1, "type": "group"}}}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(answer), answer))
        await writer.drain()
        writer.close()


class MailServer:
    """A mail server that takes everything and has no TLS."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], EmailMessage]] = []
        """Recipients and content."""
        self.port = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["MailServer"]:
        """Answer inside the block."""
        server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recipients: list[str] = []
        writer.write(b"220 here\r\n")
        while line := (await reader.readline()).decode().strip():
            word = line.partition(" ")[0].upper()
            if word == "RCPT":
                recipients.append(line.partition("<")[2].partition(">")[0])
            if word == "DATA":
                writer.write(b"354 go on\r\n")
                text = (await reader.readuntil(b"\r\n.\r\n")).decode()
                self.mails.append((recipients, message_from_string(text, policy=policy.default)))
            writer.write(b"221 bye\r\n" if word == "QUIT" else b"250 ok\r\n")
            await writer.drain()
        writer.close()
