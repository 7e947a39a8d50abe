"""What a gateway before the API has done to a request: the path under which it serves us, the client's own address.

In: an ASGI request. Out: the same, with the prefix as ``root_path`` and what trusted proxies say of scheme, host and
address in place of what the request itself says. Gateways that strip the prefix and
gateways that pass it on are both served.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from bobrai.api.operations import Operation
from bobrai.domain.errors import ConfigurationError
from bobrai.settings.api import ApiSettings
from bobrai.settings.values import is_root_path

_FORWARDED: Final = (b"x-forwarded-prefix", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-for")


def behind(app: ASGIApp, settings: ApiSettings, operations: Iterable[Operation]) -> ASGIApp:
    """Return the application as a gateway serves it; without such settings, the application itself.

    Raises ConfigurationError for a root path that is the beginning of a path of our own: a request whose prefix was
    stripped could not be told from one whose prefix is still there.
    """
    own = frozenset(_first(path) for operation in operations for path in operation.paths) - {""}
    if settings.root_path and _first(settings.root_path) in own:
        raise ConfigurationError(
            f"BOBRAI_API_ROOT_PATH: {settings.root_path} begins like a path of the service itself; "
            f"take another than /{', /'.join(sorted(own))}"
        )
    return Gateway(app, settings, own) if settings.root_path or settings.trusted_proxies else app


class Gateway:
    """The application behind a gateway."""

    def __init__(self, app: ASGIApp, settings: ApiSettings, own: frozenset[str]) -> None:
        self._app = app
        self._root_path = settings.root_path
        self._own = own
        self._networks = settings.trusted_proxies
        self._trusted = lru_cache(maxsize=1024)(self._is_trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        prefix = self._root_path
        if self._networks and (client := scope.get("client")) is not None and self._trusted(client[0]):
            prefix = _believe(scope, prefix)
            self._believe_address(scope)
        if prefix:
            # Whichever it was, it is there from here on: ASGI wants it so, and the router takes it off.
            scope["root_path"] = prefix
            path: str = scope["path"]
            if path == prefix:
                scope["path"] = f"{prefix}/"
            elif not path.startswith(f"{prefix}/") or _first(prefix) in self._own:
                scope["path"] = prefix + path
        await self._app(scope, receive, send)

    def _believe_address(self, scope: Scope) -> None:
        """Take over the client's address: the last one of the list that no trusted proxy has."""
        said = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        for address in reversed([each.strip() for each in ",".join(said).split(",")]):
            host = _bare(address)
            if host is None:
                return  # nobody can say who is behind something that is no address
            scope["client"] = (host, 0)
            if not self._trusted(host):
                return

    def _is_trusted(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


def _bare(address: str) -> str | None:
    """Return an address without the port and brackets that some proxies give it; None when it is none."""
    host = address[1:].partition("]")[0] if address.startswith("[") else address
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return str(ip_address(host))
    except ValueError:
        return None


def _first(path: str) -> str:
    return path.split("/", 2)[1]


def _believe(scope: Scope, prefix: str) -> str:
    """Take over scheme and host from a trusted proxy; returns the prefix that it says, or else this one."""
    said = {name: value for name, value in scope["headers"] if name in _FORWARDED}
    if not said:
        return prefix
    first = {name: value.decode("latin-1").partition(",")[0].strip() for name, value in said.items()}
    scheme = first.get(b"x-forwarded-proto", "").lower()
    if scheme in {"http", "https"}:
        scope["scheme"] = scheme
    if host := first.get(b"x-forwarded-host"):
        scope["headers"] = [*scope["headers"], (b"host", host.encode("latin-1"))]  # of two, the last one counts
    given = first.get(b"x-forwarded-prefix", "").rstrip("/")
    return given if given and is_root_path(given) else prefix
