"""The handlers that speak of the process and of the API itself: health, metrics, OpenAPI, the page at /docs.

In: a Request. Out: a Reply. Document and page are made once for what the catalog knows; a reader's address is put into
the page that is sent to them.
"""

from collections.abc import Callable
from html import escape
from typing import Any

import msgspec

from bobrai.api import addresses, docs_page, views
from bobrai.api.catalog import Catalog
from bobrai.api.probe import DatabaseProbe
from bobrai.api.web import Reply, Request
from bobrai.runtime.lifecycle import Stop
from bobrai.telemetry import exposition

# The page loads nothing and runs nothing, and the browser is told to keep it that way.
_PAGE_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),  # it names the reader's own address
)


class SystemRoutes:
    """Handlers without tasks; ``document`` makes the OpenAPI document for what the catalog knows now."""

    def __init__(
        self, catalog: Catalog, probe: DatabaseProbe, stop: Stop, document: Callable[[], dict[str, Any]]
    ) -> None:
        self._catalog = catalog
        self._probe = probe
        self._stop = stop
        self._document = document
        self._rendered_version = -1
        self._json = b""
        self._parts: dict[str, msgspec.Raw] = {}
        self._page = b""

    async def live(self, _request: Request) -> Reply:
        """Answer; that is all that liveness means."""
        return Reply(views.encode(views.LiveView(live=True)))

    async def ready(self, _request: Request) -> Reply:
        """Say whether requests should be sent here, which is no word about the database.

        All replicas lose that together, and taking all of them out of a Service turns answers into refused connections.
        """
        checks = {"catalog": self._catalog.loaded, "running": not self._stop.is_set()}
        ready = all(checks.values())
        return Reply(views.encode(views.ReadyView(ready, checks)), 200 if ready else 503)

    async def health(self, _request: Request) -> Reply:
        """Say how the service is, in the words of its first version."""
        alive = await self._probe.alive()
        word: Any = "healthy" if alive else "unhealthy"
        return Reply(views.encode(views.HealthView(word, {"database": word})), 200 if alive else 503)

    async def metrics(self, request: Request) -> Reply:
        """Return the metrics of this process."""
        body, content_type = exposition.render(request.headers.get(b"accept", b"").decode("latin-1"))
        return Reply(body, content_type=content_type.encode("ascii"))

    async def openapi(self, request: Request) -> Reply:
        """Return the OpenAPI document, for the path under which the reader reaches it."""
        await self._render()
        if request.prefix:
            servers = msgspec.json.encode([{"url": request.prefix}])
            return Reply(msgspec.json.encode({**self._parts, "servers": msgspec.Raw(servers)}))
        return Reply(self._json)

    async def docs(self, request: Request) -> Reply:
        """Return the documentation as a page, whose examples name the reader's own address."""
        await self._render()
        address = escape(addresses.address(request)).encode()
        page = self._page.replace(docs_page.ADDRESS.encode(), address)
        return Reply(page, headers=_PAGE_HEADERS, content_type=b"text/html; charset=utf-8")

    async def home(self, request: Request) -> Reply:
        """Lead to the page, and tell programs where it and the document are.

        Without a prefix that we know of the way is relative, so that one that we do not know of is kept.
        """
        base = request.prefix and f"{request.prefix}/"
        body = msgspec.json.encode({"docs": f"{base}docs", "openapi": f"{base}api/openapi.json"})
        return Reply(body, 307, ((b"location", f"{base}docs".encode("ascii")),))

    async def _render(self) -> None:
        await self._catalog.load()
        if self._rendered_version != self._catalog.version:
            document = self._document()
            self._json = msgspec.json.encode(document)
            self._parts = msgspec.json.decode(self._json, type=dict[str, msgspec.Raw])
            self._page = docs_page.render(document).encode()
            self._rendered_version = self._catalog.version
