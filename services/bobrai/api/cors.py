"""Which pages of other origins may read the answers: the headers by which a browser decides that, and its questions.

In: the application and the origins of the settings. Out: the same application for everybody but browsers, and for pages
of these origins answers that they may read, refusals among them. Browsers' own credentials (cookies, certificates) are
never asked for: a page shows a key or a token by itself.
"""

from collections.abc import Iterable
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from bobrai.api.operations import Operation

_SENT: Final = ("Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "X-Request-ID", "traceparent")
_SHOWN: Final = (
    "Location",
    "ETag",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "X-Request-ID",
    "Idempotency-Replayed",
    "WWW-Authenticate",
)
_MAX_AGE_SECONDS: Final = 600


def around(app: ASGIApp, origins: tuple[str, ...], operations: Iterable[Operation]) -> ASGIApp:
    """Return the application as pages of these origins may use it; without any, the application itself."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=sorted({operation.method for operation in operations} | {"HEAD"}),
        allow_headers=_SENT,
        expose_headers=_SHOWN,
        max_age=_MAX_AGE_SECONDS,
    )
