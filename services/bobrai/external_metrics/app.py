"""The application: who may ask, what is asked for, and the answer in Kubernetes' words.

In: an HTTPS request with the common name of its client (see ``server``). Out: a document, a list of values, or a
Status. Health is open to everyone; all else only to the front proxy speaking for a user.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bobrai.external_metrics import accept, documents, status
from bobrai.external_metrics.documents import Document
from bobrai.external_metrics.front_proxy import FrontProxy
from bobrai.external_metrics.status import Refused
from bobrai.external_metrics.values import Values
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
HEALTH: Final = ("/livez", "/readyz", "/healthz")


def build(values: Values, front_proxy: FrontProxy, ready: Callable[[], Mapping[str, bool]]) -> Starlette:
    """Return the application."""
    guard = _Guard(front_proxy)
    apis = documents.groups()
    aggregated = {version: documents.aggregated(version) for version in ("v2", "v2beta1")}

    async def discovery(request: Request) -> Response:
        version = accept.discovery_version(request.headers.get("accept", ""))
        return _show(apis if version is None else aggregated[version], request)

    async def live(_request: Request) -> Response:
        return PlainTextResponse("ok")

    async def is_ready(_request: Request) -> Response:
        lacking = [name for name, fact in ready().items() if not fact]
        return PlainTextResponse("\n".join(f"[-]{name}" for name in lacking) or "ok", 503 if lacking else 200)

    fixed: dict[str, Document] = {
        f"/apis/{documents.GROUP}": documents.group(),
        f"/apis/{documents.GROUP_VERSION}": documents.resources(),
        "/openapi/v2": documents.openapi_v2(),
        "/openapi/v3": documents.openapi_v3_index(),
        f"/openapi/v3/apis/{documents.GROUP_VERSION}": documents.openapi_v3(),
        "/version": documents.version(),
    }
    guarded: dict[str, Endpoint] = {path: _shows(document) for path, document in fixed.items()}
    guarded["/apis"] = discovery
    guarded[f"/apis/{documents.GROUP_VERSION}/namespaces/{{namespace}}/{{metric}}"] = _lists(values)
    opened: dict[str, Endpoint] = dict(zip(HEALTH, (live, is_ready, is_ready), strict=True))
    return Starlette(
        routes=[
            *(Route(path, _counted(path, endpoint), methods=["GET"]) for path, endpoint in opened.items()),
            *(
                Route(path + slash, _counted(path, guard.around(endpoint)), methods=_METHODS)
                for path, endpoint in guarded.items()
                for slash in ("", "/")
            ),
            Route("/{path:path}", _counted("unmatched", guard.around(_unknown)), methods=_METHODS),
        ]
    )


class _Guard:
    """Lets the front proxy in, when it speaks for a user."""

    def __init__(self, front_proxy: FrontProxy) -> None:
        self._front_proxy = front_proxy

    def around(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint for the front proxy alone."""

        async def guarded(request: Request) -> Response:
            trust = self._front_proxy.trust
            peer = request.scope["state"]["peer"]
            if peer is None or not trust.admits(peer):
                raise Refused(401, "only the API server's front proxy is answered")
            if not any(request.headers.get(header) for header in trust.user_headers):
                raise Refused(401, "the front proxy names no user")
            if request.method not in {"GET", "HEAD"}:
                raise Refused(405, f"{request.method} is not supported")
            return await endpoint(request)

        return guarded


def _counted(route: str, endpoint: Endpoint) -> Endpoint:
    async def counted(request: Request) -> Response:
        try:
            response = await endpoint(request)
        except Refused as refusal:
            response = _refuse(refusal)
        except HTTPException as error:
            response = _refuse(Refused(error.status_code if error.status_code in status.REASONS else 400, error.detail))
        except Exception:
            log.exception("external_metrics.failed", route=route)
            response = _refuse(Refused(500, "the server failed; its log tells more"))
        metrics.EXTERNAL_METRICS_REQUESTS.labels(route, str(response.status_code)).inc()
        return response

    return counted


def _refuse(refusal: Refused) -> Response:
    # A client that is not believed comes back with another certificate, which only a new connection can show.
    headers = {"connection": "close"} if refusal.code == 401 else {}
    return _json(status.body(refusal.code, refusal.message), refusal.code, headers)


def _json(content: Any, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), code, headers, media_type="application/json")


def _shows(document: Document) -> Endpoint:
    async def show(request: Request) -> Response:
        return _show(document, request)

    return show


def _show(document: Document, request: Request) -> Response:
    header = request.headers.get("accept", "")
    if document.media_type == "application/json" and not accept.takes_json(header):
        raise Refused(406, "only the following media types are accepted: application/json")
    headers = {"etag": document.etag, "vary": "Accept"}
    if request.headers.get("if-none-match") == document.etag:
        return Response(status_code=304, headers=headers)
    return Response(document.body, headers=headers, media_type=document.media_type)


def _lists(values: Values) -> Endpoint:
    async def lists(request: Request) -> Response:
        if not accept.takes_json(request.headers.get("accept", "")):
            raise Refused(406, "only the following media types are accepted: application/json")
        if request.query_params.get("watch", "").lower() in {"1", "true"}:
            raise Refused(405, "watch is not supported")
        path = request.path_params
        selector = request.query_params.get("labelSelector", "")
        return _json(await values.read(path["namespace"], path["metric"], selector))

    return lists


async def _unknown(request: Request) -> Response:
    raise Refused(404, f"the server could not find {request.url.path}")
