"""The TLS side: the server's own certificate and the authorities of its clients, both replaced while it runs.

In: two files, looked at every refresh period, and the authorities that ``front_proxy`` learned. Out: one SSLContext for
the server; each new connection takes the context of now. An SSLContext can be given more authorities but none can be
taken away, so a change makes a new one.
"""

import ssl
from pathlib import Path
from typing import Final

from bobrai import tls
from bobrai.domain.errors import ClusterUnavailable, ConfigurationError
from bobrai.runtime.certificates import Certificates

_VARIABLES: Final = ("BOBRAI_EXTERNAL_METRICS_CERTIFICATE", "BOBRAI_EXTERNAL_METRICS_KEY")


class ProxyCertificates(Certificates):
    """What is shown to clients, and whose certificates are taken from them."""

    def __init__(self, certificate: str, key: str) -> None:
        """Read both files; raises ConfigurationError when they are not a certificate and its key."""
        self._pair = (certificate, key)
        self._authorities = ""
        super().__init__([Path(certificate), Path(key)], self._context)

    def trust(self, authorities: str) -> None:
        """Take these authorities, in PEM, instead of all others; raises ClusterUnavailable when they are none."""
        before, self._authorities = self._authorities, authorities
        try:
            self.renew()
        except (ConfigurationError, OSError, ValueError) as error:
            self._authorities = before
            raise ClusterUnavailable(f"the front proxy's authorities cannot be read: {error}") from error

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Every client of an API server in use speaks it, and without tickets nothing of an old handshake lives on:
        # a client whose authority is gone cannot resume a session from the time before.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        # Asked for and verified, but not demanded: the kubelet's probes have none.
        context.verify_mode = ssl.CERT_OPTIONAL
        # Like Kubernetes, take each authority as an anchor, be it signed by itself or by another.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        tls.load_pair(context, _VARIABLES, *self._pair)
        if self._authorities:
            context.load_verify_locations(cadata=self._authorities)
        return context
