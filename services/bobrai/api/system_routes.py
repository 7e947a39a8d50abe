"""The handlers that speak of the process and of the API itself: health, metrics, OpenAPI, the page at /docs.

In: a Request. Out: a Reply. Document and page are made once for what the catalog knows; a reader's address is put into
the page that is sent to them.
"""

from collections.abc import Callable, Mapping
from html import escape
from typing import Any, Final

import msgspec

from bobrai.access.gate import Gate
from bobrai.api import addresses, docs_page, views
from bobrai.api.catalog import Catalog, KnownType
from bobrai.api.probe import DatabaseProbe
from bobrai.api.web import Reply, Request
from bobrai.domain.access import Principal, Scope
from bobrai.runtime.lifecycle import Stop
from bobrai.telemetry import exposition

# The page loads nothing and runs nothing, and the browser is told to keep it that way.
_POLICY: Final = (
    b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'"
)
_PAGE_HEADERS: Final = (
    (b"content-security-policy", _POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),  # it names the reader's own address
)
_MOST_RENDERED: Final = 16  # documents for readers who may know of different types


class SystemRoutes:
    """Handlers without tasks; ``document`` makes the OpenAPI document for what the catalog knows now."""

    def __init__(
        self,
        catalog: Catalog,
        gate: Gate,
        probe: DatabaseProbe,
        stop: Stop,
        document: Callable[[Mapping[str, KnownType]], dict[str, Any]],
    ) -> None:
        self._catalog = catalog
        self._gate = gate
        self._probe = probe
        self._stop = stop
        self._document = document
        self._rendered_version = -1
        self._rendered: dict[frozenset[str], _Rendered] = {}

    async def live(self, _request: Request) -> Reply:
        """Answer; that is all that liveness means."""
        return Reply(views.encode(views.LiveView(live=True)))

    async def ready(self, _request: Request) -> Reply:
        """Say whether requests should be sent here, which is no word about the database.

        All replicas lose that together, and taking all of them out of a Service turns answers into refused connections.
        """
        checks = {"access": self._gate.loaded, "catalog": self._catalog.loaded, "running": not self._stop.is_set()}
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
        rendered = await self._render(request.principal)
        if request.prefix:
            servers = msgspec.json.encode([{"url": request.prefix}])
            return Reply(msgspec.json.encode({**rendered.parts, "servers": msgspec.Raw(servers)}))
        return Reply(rendered.json)

    async def docs(self, request: Request) -> Reply:
        """Return the documentation as a page, whose examples name the reader's own address."""
        rendered = await self._render(request.principal)
        address = escape(addresses.address(request)).encode()
        page = rendered.page.replace(docs_page.ADDRESS.encode(), address)
        return Reply(page, headers=_PAGE_HEADERS, content_type=b"text/html; charset=utf-8")

    async def home(self, request: Request) -> Reply:
        """Lead to the page, and tell programs where it and the document are.

        Without a prefix that we know of the way is relative, so that one that we do not know of is kept.
        """
        base = request.prefix and f"{request.prefix}/"
        body = msgspec.json.encode({"docs": f"{base}docs", "openapi": f"{base}api/openapi.json"})
        return Reply(body, 307, ((b"location", f"{base}docs".encode("ascii")),))

    async def _render(self, reader: Principal) -> "_Rendered":
        """Return document and page with the types that their reader may know of; made once for each such set."""
        await self._catalog.load()
        catalog = self._catalog
        if self._rendered_version != catalog.version or len(self._rendered) >= _MOST_RENDERED:
            self._rendered.clear()
            self._rendered_version = catalog.version
        seen = {name: known for name, known in catalog.types.items() if _may_know(reader, name)}
        rendered = self._rendered.get(frozenset(seen))
        if rendered is None:
            rendered = self._rendered[frozenset(seen)] = _Rendered(self._document(seen))
        return rendered


class _Rendered:
    """The document as JSON, whole and in parts, and as a page."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.json = msgspec.json.encode(document)
        self.parts = msgspec.json.decode(self.json, type=dict[str, msgspec.Raw])
        self.page = docs_page.render(document).encode()


def _may_know(reader: Principal, type_name: str) -> bool:
    knows_types = reader.may(Scope.QUEUES_READ) or reader.may(Scope.TASKS_SUBMIT)
    return knows_types and reader.grant.has_type(type_name)
