"""The TLS side: the server's own certificate and the authorities of its clients, both replaced while it runs.

In: two files, looked at every refresh period, and the authorities that ``front_proxy`` learned. Out: one SSLContext for
the server; each new connection takes the context of now. An SSLContext can be given more authorities but none can be
taken away, so a change makes a new one.
"""

import ssl
from collections.abc import Callable
from pathlib import Path

from bobrai.domain.errors import ClusterUnavailable, ConfigurationError
from bobrai.external_metrics import expiry
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)


class Certificates:
    """What is shown to clients, and whose certificates are taken from them."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read both files; raises ConfigurationError when they are not a certificate and its key."""
        self._files = (certificate, key)
        self._authorities = ""
        self._on_change: Callable[[], None] | None = None
        try:
            self._pair = self._read()
            self._current = self._make()
            self.context = self._make()
            self._show_end()
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                "BOBRAI_EXTERNAL_METRICS_CERTIFICATE and BOBRAI_EXTERNAL_METRICS_KEY must name a certificate and its "
                f"private key, both in PEM: {error}"
            ) from error
        self.context.sni_callback = self._choose

    def on_change(self, call: Callable[[], None]) -> None:
        """Call this whenever connections that are open were made under what no longer holds."""
        self._on_change = call

    def holds(self, context: ssl.SSLContext) -> bool:
        """Return whether a connection's context is the one of now."""
        return context is self._current

    def trust(self, authorities: str) -> None:
        """Take these authorities, in PEM, instead of all others; raises ClusterUnavailable when they are none."""
        before, self._authorities = self._authorities, authorities
        try:
            self._renew()
        except (OSError, ValueError) as error:
            self._authorities = before
            raise ClusterUnavailable(f"the front proxy's authorities cannot be read: {error}") from error

    async def run_once(self) -> None:
        """Take a new certificate when the files have changed; raises OSError or ValueError, and the old one stays."""
        pair = self._read()
        if pair != self._pair:
            before, self._pair = self._pair, pair
            try:
                self._renew()
            except (OSError, ValueError):
                self._pair = before  # one file is replaced before the other: the next look finds both
                raise
            self._show_end()
            log.info("certificate.changed")

    def _renew(self) -> None:
        self._current = self._make()
        if self._on_change is not None:
            self._on_change()

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _show_end(self) -> None:
        metrics.CERTIFICATE_EXPIRY.set(expiry.ends_at(self._pair[0]))

    def _read(self) -> tuple[bytes, bytes]:
        certificate, key = self._files
        return certificate.read_bytes(), key.read_bytes()

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Every client of an API server in use speaks it, and without tickets nothing of an old handshake lives on:
        # a client whose authority is gone cannot resume a session from the time before.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        # Asked for and verified, but not demanded: the kubelet's probes have none.
        context.verify_mode = ssl.CERT_OPTIONAL
        # Like Kubernetes, take each authority as an anchor, be it signed by itself or by another.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_cert_chain(*self._files)
        if self._authorities:
            context.load_verify_locations(cadata=self._authorities)
        return context
