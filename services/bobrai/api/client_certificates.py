"""Refuses requests of clients that show no certificate, where one is required.

In: an ASGI request whose connection says whether a certificate was verified (``server``). Out: the application's
answer, or a problem. The probes' paths are open to everyone: a kubelet has no certificate to show.
"""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from bobrai.api.problems import Problem
from bobrai.api.web import Reply
from bobrai.runtime import problem
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

VERIFIED: Final = "client_verified"  # in the state of a request's scope
_OPEN: Final = frozenset({"/livez", "/readyz"})
_KIND: Final = "client-certificate-required"
_DETAIL: Final = "Only clients that show a certificate are served here; show one that the service's authorities signed"


def required(app: ASGIApp) -> ASGIApp:
    """Return the application for clients with a certificate."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["state"].get(VERIFIED) or scope["path"] in _OPEN:
            await app(scope, receive, send)
            return
        request_id = problem.new_request_id()
        refusal = Problem(_KIND, _DETAIL, headers=((b"connection", b"close"),))
        log.info("http.refused", status=refusal.status, kind=_KIND, request_id=request_id)
        reply = Reply(refusal.body(request_id), refusal.status, refusal.headers, problem.CONTENT_TYPE)
        await reply.send(send, request_id)

    return guarded
