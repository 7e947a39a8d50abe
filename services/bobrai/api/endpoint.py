"""The ASGI application of one path: everything that surrounds a handler, who may ask for it included, written once.

In: an ASGI request that the router brought here. Out: exactly one reply, a line in the log and a count. Bounds the time
of body and answer, turns errors into problems, and keeps what went wrong inside the log.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Final, NamedTuple

from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from bobrai.access.gate import Gate
from bobrai.api import problems
from bobrai.api.bodies import Bodies, Body
from bobrai.api.browsers import Browsers
from bobrai.api.deadlines import Deadlines
from bobrai.api.operations import Operation
from bobrai.api.web import ClientGone, Reply, Request
from bobrai.domain import limits
from bobrai.domain.access import Principal, PrincipalKind, Scope
from bobrai.domain.errors import CredentialRefused, DatabaseUnavailable, RateLimited
from bobrai.runtime import problem
from bobrai.runtime.outage import Outage
from bobrai.telemetry import logs, metrics, traces

log = logs.get_logger(__name__)

_BODY_SECONDS: Final = 30.0
# With what the client's connection costs, an answer stays under ten seconds whatever the database does.
ANSWER_SECONDS: Final = 8.5
# After which a principal is looked at again: a key that ended meanwhile opens nothing more.
_BELIEVED_SECONDS: Final = 0.5
_CLIENT_GONE: Final = 499  # for log and metrics; nobody receives it
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})


class Shared(NamedTuple):
    """What all endpoints of a process ask."""

    gate: Gate
    browsers: Browsers
    deadlines: Deadlines
    bodies: Bodies


class Endpoint:
    """One path of the API, or with no operations the place where unknown paths end."""

    def __init__(self, route: str, operations: Mapping[str, Operation], shared: Shared) -> None:
        self._gate, self._browsers, self._deadlines, self._bodies = shared
        self._route = route
        self._operations = dict(operations)
        if "GET" in operations:
            self._operations["HEAD"] = operations["GET"]
        self._allowed = ", ".join(sorted(self._operations))
        self._requests = lru_cache(maxsize=256)(
            lambda method, status: metrics.HTTP_REQUESTS.labels(method, route, str(status))
        )
        self._outages: dict[str, Outage] = {}  # by method; none as long as all went well
        self._seconds = lru_cache(maxsize=16)(lambda method: metrics.HTTP_REQUEST_SECONDS.labels(method, route))

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        request = Request(self._route, scope, receive)
        logs.carry(partial(_fields, request.request_id))  # the server gives every request a context of its own
        operation = self._operations.get(request.method)
        if traces.on and operation is not None and not operation.quiet:
            request.span = traces.serve(request.method, self._route, scope, request.given_trace_context)
            if request.span is not None:
                request.span.enter()
        status = _CLIENT_GONE
        try:
            try:
                reply = await self._answer(operation, request)
            except Exception as error:  # noqa: BLE001 - every error becomes an answer
                reply = self._explain(error, request)
            else:
                if (outage := self._outages.get(request.method)) is not None:
                    outage.over()
            await reply.send(send, request.request_id, request.standing)
            status = reply.status
        except ClientGone:
            pass  # counted below; there is nobody to answer
        finally:
            self._record(request, operation, status, time.perf_counter() - started)

    async def _answer(self, operation: Operation | None, request: Request) -> Reply:
        if operation is None:
            if not self._operations:
                raise problems.Problem("not-found", "Nothing is served at this path")
            raise problems.method_not_allowed(request.method, self._allowed)
        if self._deadlines.full and not operation.quiet:
            raise problems.overloaded(self._deadlines.most)
        deadline = request.deadline = self._deadlines.start(_BODY_SECONDS)
        request.deadlines = self._deadlines
        room = None
        try:
            if operation.scope is not None or not operation.quiet:
                await self._admit(operation, request)
            elif operation.tells_names:
                self._browsers.check_name(request)
            if operation.body_limit is not None or request.has_body:
                room = request.room = Body(deadline)
                request.bodies = self._bodies
                await self._read(operation, request)
            # A body may take 30 s to come, and an answer that waits for a task takes 60 s.
            await self._still(operation, request)
            request.confirm = still = partial(self._still, operation, request, changed=problems.grant_changed)
            request.allow(ANSWER_SECONDS)
            reply = await operation.handler(request)
            # What was changed stays so, and is answered as it is; but nothing is shown, such as a secret.
            if operation.method == "GET" or operation.scope is Scope.ADMIN:
                await still()
            return reply
        except asyncio.CancelledError as error:
            if not deadline.cut:
                raise  # the process ends
            raise self._cut_short(request) from error
        finally:
            self._deadlines.end(deadline)
            if room is not None:
                self._bodies.release(room)

    async def _admit(self, operation: Operation, request: Request) -> None:
        """Find out whom the request is from, and whether they may; before anything of its body is read."""
        request.refuse_repeated()
        principal = await self._identify(request)
        request.standing = self._gate.count(principal, request.address)
        self._deadlines.count(request.deadline, principal)
        self._check(operation, request)

    async def _still(
        self, operation: Operation, request: Request, changed: Callable[[], Exception] | None = None
    ) -> None:
        """Look again whom a request is from, if it has taken a while since that was known.

        Raises what ``_admit`` raises, and ``changed`` when the handler was told of another grant than holds by now.
        """
        if operation.quiet or time.monotonic() - request.known_at < _BELIEVED_SECONDS:
            return
        before = request.principal
        principal = await self._identify(request)
        self._check(operation, request)
        if changed is not None and principal.grant != before.grant:
            raise changed()

    async def _identify(self, request: Request) -> Principal:
        request.known_at = time.monotonic()
        request.principal = await self._gate.principal(request.headers.get(b"authorization"), request.address)
        return request.principal

    def _check(self, operation: Operation, request: Request) -> None:
        """Raise a 401 or 403 problem unless the principal may have the operation done."""
        principal, scope = request.principal, operation.scope
        if scope is None or principal.may(scope):
            if principal.kind is PrincipalKind.ANONYMOUS:
                self._browsers.check(request)
            return
        if principal.kind is PrincipalKind.ANONYMOUS:
            metrics.ACCESS_REFUSED.labels("missing").inc()
            raise problems.no_credential(scope)
        metrics.ACCESS_REFUSED.labels("scope").inc()
        raise problems.lacks_scope(scope)

    async def _read(self, operation: Operation, request: Request) -> None:
        if operation.body_limit is None:  # nobody wants it, but what is not read would lie in the server
            await request.read_body(limits.MAX_BODY_BYTES)
            request.body = b""
        elif request.has_body or not operation.body_optional:
            request.require_json()
            await request.read_body(operation.body_limit)

    def _cut_short(self, request: Request) -> Exception:
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        if request.deadline.crowded:
            return problems.crowded()
        if request.unread:
            return problems.busy(ANSWER_SECONDS)
        if request.answering:
            return DatabaseUnavailable(f"no answer within {ANSWER_SECONDS:g} s", perhaps_one_row=True)
        return problems.body_timeout(_BODY_SECONDS)

    def _explain(self, error: Exception, request: Request) -> Reply:
        if isinstance(error, ClientGone):
            raise error
        # Of a database that is away altogether the catalog's loop tells.
        if isinstance(error, DatabaseUnavailable) and (error.sqlstate or error.perhaps_one_row):
            method = request.method
            self._outages.setdefault(method, Outage(f"{method} {self._route}")).failed(error)
        # An address that has shown too many credentials that prove nothing is told so, and the log why.
        cause = error.__context__ if isinstance(error, RateLimited) else error
        found = problems.of(error)
        if isinstance(cause, CredentialRefused):
            request.refused, request.credential = cause.reason, cause.credential
        elif found is not None:
            request.refused = found.reason
        if found is None:
            log.error("http.failed", route=self._route, exc_info=error)
            found = problems.Problem("internal", "The server failed; its log tells more under this request_id")
        return Reply(found.body(request.request_id), found.status, found.headers, problem.CONTENT_TYPE)

    def _record(self, request: Request, operation: Operation | None, status: int, seconds: float) -> None:
        method = request.method if request.method in _METHODS else "other"
        self._requests(method, status).inc()
        span = request.span
        if span is not None:
            span.end(status)
        self._seconds(method).observe(seconds, "" if span is None else span.trace_id)
        quiet = operation is not None and operation.quiet
        if not logs.prints(logging.DEBUG if quiet else logging.INFO):
            return
        fields = {"method": method, "route": self._route, "status": status, "seconds": round(seconds, 6)}
        if request.principal.id:
            fields["principal"] = request.principal.id
        if request.refused:
            fields |= {"refused": request.refused, "address": request.address}
            if request.credential:
                fields["refused_id"] = request.credential
        if request.task_id is not None:
            fields["task_id"] = request.task_id
        if quiet:
            log.debug("http.request", **fields)
        else:
            log.info("http.request", **fields)


def _fields(request_id: str) -> dict[str, object]:
    return {"request_id": request_id}
