"""Opens connections, and finds the server that takes writes when the DSN names several hosts.

In: a DSN. Out: an open connection to a host that answered within its share of the time and is not read-only. After a
failover that is another one than before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import asyncpg


class Connector:
    """Connects to one of the hosts of a DSN, first to the one that was right the last time."""

    def __init__(self, url: str) -> None:
        self._urls = _single_hosts(url)
        self._first = 0

    async def __call__(
        self,
        dsn: str | None = None,  # noqa: ARG002 - a pool passes its own, we have ours
        *,
        timeout: float = 5.0,
        **options: Any,
    ) -> asyncpg.Connection[asyncpg.Record]:
        """Return an open connection; takes what ``asyncpg.connect`` takes, and raises what it raises.

        The hosts share ``timeout`` (in seconds), so that one which is silent does not use up all of it.
        """
        if len(self._urls) > 1 and "target_session_attrs" not in self._urls[0]:
            options["target_session_attrs"] = "read-write"
        share = timeout / len(self._urls)
        failure: Exception = OSError("no host was tried")
        for offset in range(len(self._urls)):
            at = (self._first + offset) % len(self._urls)
            try:
                connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                    self._urls[at], timeout=share, **options
                )
            except (asyncpg.PostgresError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
                failure = error
            else:
                self._first = at
                return connection
        raise failure


def _single_hosts(url: str) -> Sequence[str]:
    """Return one DSN for each host between the credentials and the path; other forms are left to the driver."""
    netloc = urlsplit(url).netloc
    credentials, at, hosts = netloc.rpartition("@")
    return [url.replace(netloc, f"{credentials}{at}{host}", 1) for host in hosts.split(",")] if netloc else [url]
