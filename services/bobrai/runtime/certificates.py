"""A server's side of TLS: one SSLContext that is made anew when its files change, while the server runs.

In: how to make a context, and the files that it is made of, looked at every refresh period. Out: the context for the
listening socket, by which each new connection gets the context of now. Files that cannot be used change nothing. Next:
``acceptor``, which does the handshakes.
"""

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from bobrai.domain.errors import ConfigurationError
from bobrai.runtime import expiry
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)


class Certificates:
    """What a server shows to its clients, and whose certificates it takes from them."""

    def __init__(self, files: Sequence[Path], make: Callable[[], ssl.SSLContext]) -> None:
        """Make the first context; ``make`` reads the files, of which the first is the server's own certificate.

        Raises ConfigurationError.
        """
        self._files = tuple(files)
        self._make = make
        self._current = make()
        try:
            self._contents = self._read()
            metrics.CERTIFICATE_EXPIRY.set(expiry.ends_at(self._contents[0]))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{files[0]} cannot be used: {error}") from error
        self._wrong = ""
        self._told = False
        self._on_change: Callable[[], None] | None = None
        self.context = make()
        self.context.sni_callback = self._choose

    def on_change(self, call: Callable[[], None]) -> None:
        """Call this whenever connections that are open were made under what no longer holds."""
        self._on_change = call

    def holds(self, context: ssl.SSLContext) -> bool:
        """Return whether a connection's context is the one of now."""
        return context is self._current

    def renew(self) -> None:
        """Make the context of now anew; raises what ``make`` raises, and the old one stays."""
        self._current = self._make()
        if self._on_change is not None:
            self._on_change()

    async def run_once(self) -> None:
        """Take what the files hold when that has changed; what cannot be used is said once."""
        try:
            contents = self._read()
            if contents != self._contents:
                ends_at = expiry.ends_at(contents[0])
                self.renew()
                self._contents = contents
                metrics.CERTIFICATE_EXPIRY.set(ends_at)
                log.info("certificate.changed", file=str(self._files[0]), ends_at=ends_at)
        except (ConfigurationError, OSError, ValueError) as error:
            self._refuse(str(error))
        else:
            self._wrong, self._told = "", False

    def _refuse(self, error: str) -> None:
        # One file is replaced before the other: what is wrong only once is no fault.
        if error != self._wrong:
            self._wrong, self._told = error, False
        elif not self._told:
            self._told = True
            log.warning("certificate.refused", error=error)

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _read(self) -> tuple[bytes, ...]:
        return tuple(file.read_bytes() for file in self._files)
