"""The API's HTTP server: how much its clients may take, and what they are shown and asked for under TLS.

In: the application and its settings. Out: a server for ``main``; under TLS its requests say whether their client has
shown a certificate (next: ``client_certificates``).
"""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp

from bobrai import tls
from bobrai.api import client_certificates
from bobrai.runtime.certificates import Certificates
from bobrai.runtime.connections import Limits
from bobrai.runtime.http import HttpProtocol
from bobrai.runtime.server import HttpConfig, QuietServer
from bobrai.settings.api import ApiSettings

_VARIABLES: Final = ("BOBRAI_API_TLS_CERTIFICATE", "BOBRAI_API_TLS_KEY")


class _Protocol(HttpProtocol):
    _verified = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._verified = bool(transport.get_extra_info("peercert"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][client_certificates.VERIFIED] = self._verified


class HttpServer(QuietServer):
    """A server that says when it takes connections."""

    def __init__(
        self, app: ASGIApp, settings: ApiSettings, certificates: Certificates | None, on_started: Callable[[], None]
    ) -> None:
        most = settings.max_connections_per_address
        if most and certificates is not None:
            most += 1  # for a moment the handshake and what comes of it are two
        limits = Limits(settings.max_connections, settings.keep_alive_seconds, most)
        asks = certificates is not None and bool(settings.tls_client_ca)
        if asks and settings.tls_client_certificates == "required":
            app = client_certificates.required(app)
        context = None if certificates is None else certificates.context
        super().__init__(HttpConfig(app, limits, settings.drain_seconds, _Protocol if asks else HttpProtocol, context))
        if certificates is not None and asks:
            certificates.on_change(self.renew_connections)  # an authority may be gone
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._on_started()


def certificates_of(settings: ApiSettings) -> Certificates | None:
    """Return what HTTPS is served with, None without TLS; raises ConfigurationError for files that cannot be used."""
    if not settings.tls_certificate:
        return None

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        tls.load_pair(context, _VARIABLES, settings.tls_certificate, settings.tls_key)
        if settings.tls_client_ca:
            # Without tickets, and without the sessions that a server keeps for TLS 1.2, nothing of an old handshake
            # lives on: a client whose authority is gone cannot resume a session from the time before.
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.num_tickets = 0
            context.verify_mode = ssl.CERT_OPTIONAL  # who shows none is told in words
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # each authority in the file is an anchor
            tls.load_authorities(context, "BOBRAI_API_TLS_CLIENT_CA", settings.tls_client_ca)
        return context

    files = [settings.tls_certificate, settings.tls_key, settings.tls_client_ca]
    return Certificates([Path(file) for file in files if file], make)
