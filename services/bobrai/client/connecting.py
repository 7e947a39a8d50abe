"""How the client reaches the API: its URL, its credential, TLS, and what every request carries.

In: arguments and the environment. Out: a Target, from which pools of connections are made. Both clients share it.
"""

import os
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpx

from bobrai import __version__, tls
from bobrai.client.errors import ConnectionFailed
from bobrai.client.exchange import Answer, Patience, Request, Send
from bobrai.domain.errors import ConfigurationError

DEFAULT_URL: Final = "http://127.0.0.1:8001"
# Nothing of the request has left this machine, or there was no connection that it could have taken.
_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """Where the API is, and who asks."""

    url: str
    api_key: str
    context: ssl.SSLContext
    patience: Patience
    max_connections: int

    def __repr__(self) -> str:
        """Show it without the key."""
        return f"{self.url}{', with a key' if self.api_key else ''}"

    def pool(self) -> dict[str, Any]:
        """Return what a pool of connections is made with."""
        headers = {"user-agent": f"bobrai-python/{__version__}", "accept": "application/json"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        most = httpx.Limits(max_connections=self.max_connections, max_keepalive_connections=self.max_connections)
        return {"headers": headers, "verify": self.context, "limits": most, "follow_redirects": False}

    def request(self, request: Request, send: Send) -> dict[str, Any]:
        """Return what a pool is asked."""
        connect = min(send.timeout_seconds, self.patience.timeout)
        content = {} if request.body is None else {"content-type": "application/json"}
        return {
            "method": request.method,
            "url": self.url + request.path,
            "params": dict(request.query),
            "content": request.body,
            "headers": {**content, **request.headers, **trace_headers()},
            "timeout": httpx.Timeout(send.timeout_seconds, connect=connect, pool=connect),
        }


def target(
    url: str | None,
    api_key: str | None,
    *,
    ca: str | os.PathLike[str] | None,
    certificate: tuple[str, str] | None,
    patience: Patience,
    max_connections: int,
) -> Target:
    """Return where the API is by the arguments, else by BOBRAI_URL and BOBRAI_API_KEY; raises ConfigurationError."""
    where = (url if url is not None else os.environ.get("BOBRAI_URL", "")).strip() or DEFAULT_URL
    parts = _parts(where)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(f"{where!r} is not the URL of an API; write it as http://HOST:PORT")
    key = (api_key if api_key is not None else os.environ.get("BOBRAI_API_KEY", "")).strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("the API key is none: it has characters that no key has")
    return Target(where.rstrip("/"), key, _context(ca, certificate), patience, max_connections)


def _parts(where: str) -> SplitResult:
    """Return the parts of a URL; one that holds a password is not shown, as clients and their errors show theirs."""
    try:
        parts = urlsplit(where)
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError("the URL of the API is none; write it as http://HOST:PORT") from error
    if "@" in parts.netloc:
        raise ConfigurationError("the URL of the API has a user in it; show a key instead: api_key, or BOBRAI_API_KEY")
    return parts


def _context(ca: str | os.PathLike[str] | None, certificate: tuple[str, str] | None) -> ssl.SSLContext:
    name, file = ("SSL_CERT_FILE", os.environ.get("SSL_CERT_FILE")) if ca is None else ("ca", os.fspath(ca))
    if file:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_authorities(context, name, file)
    else:
        context = httpx.create_ssl_context()
    # Python 3.13's default, which refuses what certificates of authorities of one's own often lack.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if certificate is not None:
        tls.load_pair(context, ("certificate", "key of the certificate"), *certificate)
    return context


def answer(response: httpx.Response) -> Answer:
    """Return a response as the rules of the exchange take it."""
    return Answer(
        response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content
    )


def failure(error: httpx.HTTPError, where: Target) -> ConnectionFailed:
    """Return what a failed try was."""
    told = str(error) or type(error).__name__
    return ConnectionFailed(
        f"no answer from {where.url}: {told}", unsent=isinstance(error, _UNSENT), is_lasting=_is_mistrust(error)
    )


def _is_mistrust(error: BaseException | None) -> bool:
    """Whether a server's certificate was refused, which the libraries between have wrapped."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


def trace_headers() -> Mapping[str, str]:
    """Return where the caller stands in a trace, if it makes one with OpenTelemetry."""
    trace = sys.modules.get("opentelemetry.trace")  # who has a span has imported it
    if trace is None:
        return {}
    ids = trace.get_current_span().get_span_context()
    if not ids.is_valid:
        return {}
    headers = {"traceparent": f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags & 3:02x}"}
    if ids.trace_state:
        headers["tracestate"] = ids.trace_state.to_header()
    return headers
