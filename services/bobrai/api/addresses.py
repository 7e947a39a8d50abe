"""Where clients see this service: the address that a page shows them, and the path under which they reach it.

In: a request. Out: text that is safe in a page and in a shell, whatever the request says.
"""

import re
from typing import Final

from bobrai.api.web import Request

# A name, an IPv4 address or one of IPv6, and perhaps a port: nothing that HTML or a shell reads as its own.
_HOST: Final = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def address(request: Request) -> str:
    """Return ``http://host:port/prefix`` as the client wrote it, or the server's own host when that is none."""
    scheme = "https" if request.scope["scheme"] == "https" else "http"
    host = request.headers.get(b"host", b"").decode("latin-1")
    return f"{scheme}://{host if _HOST.fullmatch(host) else _own(request)}{request.prefix}"


def _own(request: Request) -> str:
    host, port = request.scope.get("server") or ("localhost", None)
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"
