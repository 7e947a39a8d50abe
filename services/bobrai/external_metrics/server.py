"""The HTTPS server: uvicorn, which here also tells the application whose certificate the client has.

In: an ASGI application and ProxyCertificates. Out: a server whose requests carry the verified common name of their
client, ``scope["state"]["peer"]``; None without a certificate, or with one that was verified under what no longer
holds.
"""

import ssl
from typing import Any, Final

from starlette.types import ASGIApp

from bobrai.external_metrics.certificates import ProxyCertificates
from bobrai.runtime.connections import Limits
from bobrai.runtime.http import HttpProtocol
from bobrai.runtime.server import HttpConfig, QuietServer

# Longer than the API server keeps an idle connection (90 s), so that it is the one who closes.
_LIMITS: Final = Limits(connections=1024, keep_alive_seconds=120)


class _Config(HttpConfig):
    def __init__(self, app: ASGIApp, certificates: ProxyCertificates, drain_seconds: float) -> None:
        super().__init__(app, _LIMITS, drain_seconds, _Protocol, certificates.context)
        self.certificates = certificates


class _Protocol(HttpProtocol):
    config: _Config
    _peer: str | None = None
    _context: ssl.SSLContext | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._context = transport.get_extra_info("ssl_object").context
        self._peer = common_name(transport.get_extra_info("peercert") or {})

    def on_message_begin(self) -> None:
        super().on_message_begin()
        holds = self._context is not None and self.config.certificates.holds(self._context)
        self.scope["state"]["peer"] = self._peer if holds else None


class HttpsServer(QuietServer):
    """A server whose connections last no longer than the certificates that they were made under."""

    def __init__(self, app: ASGIApp, certificates: ProxyCertificates, drain_seconds: float) -> None:
        super().__init__(_Config(app, certificates, drain_seconds))
        certificates.on_change(self.renew_connections)


def common_name(certificate: dict[str, Any]) -> str | None:
    """Return the common name of a certificate's subject, the last if there are several; None without a certificate."""
    if not certificate:
        return None
    names = [value for part in certificate.get("subject", ()) for name, value in part if name == "commonName"]
    return str(names[-1]) if names else ""
