"""Hears NOTIFY on a direct connection, because a pooler in transaction mode cannot carry LISTEN.

In: commits that wrote outbox rows. Out: one call per notification. Without it the dispatcher still finds everything
by its slow poll.
"""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from bobrai.store.connecting import Connector
from bobrai.store.pool import driver_errors


class Listener:
    """One connection that listens on one channel until it is lost or closed."""

    def __init__(self, url: str, channel: str, *, timeout_seconds: float) -> None:
        self._connect = Connector(url)
        self._channel = channel
        self._timeout = timeout_seconds
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def open(self, on_notify: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Start to listen; both callbacks run in the event loop. Raises DatabaseUnavailable."""
        with driver_errors():
            connection = await self._connect(
                timeout=self._timeout,
                command_timeout=self._timeout,
                statement_cache_size=0,
                server_settings={"application_name": "bobrai-listener"},
            )
            connection.add_termination_listener(lambda _connection: on_lost())
            await connection.add_listener(self._channel, lambda *_details: on_notify())
            self._connection = connection

    async def check(self) -> None:
        """Ask for a sign of life, since a half-open connection is silent for ever; raises DatabaseUnavailable."""
        with driver_errors():
            if self._connection is None:
                raise TimeoutError("not listening")
            await self._connection.execute("SELECT 1")

    def close(self) -> None:
        """Drop the connection at once."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
