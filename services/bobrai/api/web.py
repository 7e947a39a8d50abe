"""One request and one reply: the thin layer between ASGI messages and the handlers of this room.

In: an ASGI scope and its messages. Out: a Request with a bounded body, and a Reply that is sent in two messages. Which
handler runs is decided in ``endpoint``; what a wrong request is told, in ``problems``.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from bobrai.api import problems
from bobrai.api.bodies import Bodies, Body
from bobrai.api.deadlines import Deadline, Deadlines
from bobrai.domain import limits
from bobrai.domain.access import Standing, anonymous
from bobrai.domain.audit import Author
from bobrai.runtime.problem import new_request_id
from bobrai.telemetry.spans import ServerSpan

JSON: Final = b"application/json"
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")  # a payload is never taken for a page or a script
ANYBODY: Final = anonymous(())  # until it is known better
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,%d}" % limits.MAX_REQUEST_ID)
_TRACESTATE: Final = re.compile(rb"[!-~][ -~]{0,511}")
_TRACEPARENT: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# Of two that differ, another on the way may have believed the other one.
_ONCE: Final = (b"authorization", b"idempotency-key", b"content-type")
# How much of a body that is refused for its size is read and thrown away, so that the client can read the answer.
_DISCARDED_BYTES: Final = 8 * 1024 * 1024


class ClientGone(Exception):
    """The client closed its connection before the request was complete; nobody reads an answer."""


class Reply:
    """What is sent back; ``headers`` come on top of those that every answer has."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        body: bytes = b"",
        status: int = 200,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        content_type: bytes = JSON,
    ) -> None:
        self.body = body
        self.status = status
        self.headers = headers
        self.content_type = content_type

    async def send(self, send: Send, request_id: str, standing: Standing | None = None) -> None:
        """Send it all, and what its principal has left, if that is bounded.

        A reply that must not have a body (204, 304) gets neither body nor content headers.
        """
        headers = [(b"x-request-id", request_id.encode("latin-1")), _NOSNIFF, *self.headers]
        if standing is not None:
            headers += problems.rate_headers(standing)
        if self.status not in {204, 304}:
            headers.append((b"content-type", self.content_type))
            headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Request:
    """What a handler may know of a request.

    ``principal`` is set by the endpoint, ``task_id`` by the handler for the log line, ``refused`` by the
    endpoint, for it too.
    """

    __slots__ = (
        "_receive",
        "answering",
        "bodies",
        "body",
        "confirm",
        "credential",
        "deadline",
        "deadlines",
        "headers",
        "known_at",
        "method",
        "params",
        "principal",
        "query_string",
        "refused",
        "request_id",
        "room",
        "route",
        "scope",
        "span",
        "standing",
        "task_id",
        "unread",
    )
    deadline: Deadline
    deadlines: Deadlines
    bodies: Bodies
    room: Body
    confirm: Callable[[], Awaitable[object]]  # raises a problem for a credential that has ended meanwhile

    def __init__(self, route: str, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self.scope = scope
        self.method: str = scope["method"]
        self.query_string: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.params: Mapping[str, str] = scope.get("path_params") or {}
        self.body = b""
        self.route = route
        self.answering = False  # the body is complete, the handler runs
        self.unread = False  # the handler has not looked at all of the body, so that nothing can have been done
        self.principal = ANYBODY
        self.known_at = 0.0  # when it was looked at whom it is from, by the monotonic clock
        self.standing: Standing | None = None  # None: nothing bounds it
        self.task_id: int | None = None
        self.refused = ""  # why its credential was refused
        self.credential = ""  # which one it was, as it says itself
        self.span: ServerSpan | None = None  # None: traces are off
        given = self.headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            self.request_id = given.decode("ascii")
        else:
            self.request_id = new_request_id()

    def refuse_repeated(self) -> None:
        """Raise a 400 problem for a header that came twice, and of which one would decide."""
        headers = self.scope["headers"]
        if len(self.headers) == len(headers):
            return
        names = [name for name, _ in headers]
        for name in _ONCE:
            if names.count(name) > 1:
                raise problems.repeated_header(name.decode("ascii").title())

    @property
    def prefix(self) -> str:
        """The path under which a gateway serves us, for links; empty at the root."""
        prefix: str = self.scope.get("root_path", "")
        return prefix

    @property
    def address(self) -> str:
        """Where the request is from: the connection's other end, or what a trusted proxy says that it is."""
        client = self.scope.get("client")
        return "" if client is None else str(client[0])

    @property
    def author(self) -> Author:
        """Whose wish a change is that this request makes."""
        principal = self.principal
        return Author(principal.id or principal.name, principal.name, self.address, self.request_id)

    def allow(self, seconds: float) -> None:
        """Let the answer take so many seconds from now."""
        self.answering = True
        self.deadline.allow(seconds)

    @property
    def trace_context(self) -> str:
        """Where this request stands in a trace, for the row: the client's own words when traces are off here."""
        return self.given_trace_context if self.span is None else self.span.context

    @property
    def given_trace_context(self) -> str:
        """The client's W3C traceparent, empty when there is none or it is malformed, and its tracestate if any."""
        given = self.headers.get(b"traceparent")
        if given is None or not _TRACEPARENT.fullmatch(given):
            return ""
        state = self.headers.get(b"tracestate", b"")
        return (given + b" " + state if _TRACESTATE.fullmatch(state) else given).decode("ascii")

    def require_json(self) -> None:
        """Raise a 415 problem unless the body is declared as plain JSON in UTF-8."""
        given = self.headers.get(b"content-type", b"")
        if given != JSON:
            media, *parameters = given.lower().split(b";")
            named = (parameter.partition(b"=") for parameter in parameters)
            charsets = {value.strip().strip(b'"') for name, _, value in named if name.strip() == b"charset"}
            if media.strip() != JSON or charsets - {b"utf-8", b"utf8", b"us-ascii"}:
                raise problems.unsupported_media_type("Send Content-Type: application/json, in UTF-8")
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise problems.unsupported_media_type("Send the body without a Content-Encoding")

    async def read_body(self, limit: int) -> None:
        """Read the whole body into ``body``.

        Raises a 413 problem for more than ``limit`` bytes, without keeping them, a 503 problem when the process holds
        too many bytes of bodies, and ClientGone.
        """
        declared = int(self.headers.get(b"content-length", b"0"))
        if declared > limit:
            await self._refuse_size(limit, declared)
        if declared > limits.MAX_BODY_BYTES:
            await self._have_room(declared)  # before the first byte, and before it is asked for
        message = await self._next()
        first = message.get("body", b"")
        if message.get("more_body"):
            self.bodies.arrives(self.room)
            await self._read_on(first, limit)
            self.bodies.complete(self.room)
        elif len(first) > limit:
            raise problems.body_too_large(limit)
        else:
            await self._have_room(len(first))
            self.body = first

    @property
    def has_body(self) -> bool:
        """Whether the client sends one: RFC 9112 has it announced by either of two headers."""
        return self.headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in self.headers

    async def _read_on(self, first: bytes, limit: int) -> None:
        chunks, size, more = [first], len(first), True
        while True:
            if size > limit:
                chunks.clear()
                await self._refuse_size(limit, size, more=more)
            if size > self.room.size:
                # One that did not say its size, and is not small, may become as large as is allowed.
                await self._have_room(size if size <= limits.MAX_BODY_BYTES else limit)
            if not more:
                break
            message = await self._next()
            more = message.get("more_body", False)
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
        self.body = b"".join(chunks)

    async def _have_room(self, size: int) -> None:
        if not self.bodies.take(self.room, size):
            await self.bodies.wait(self.room, size)

    async def _refuse_size(self, limit: int, size: int, *, more: bool = True) -> None:
        if size > _DISCARDED_BYTES or self.headers.get(b"expect", b"").lower() == b"100-continue":
            raise problems.body_too_large(limit, close=True)
        discarded = 0
        while more:
            message = await self._next()
            more = message.get("more_body", False)
            discarded += len(message.get("body", b""))
            if discarded > _DISCARDED_BYTES:
                raise problems.body_too_large(limit, close=True)
        raise problems.body_too_large(limit)

    async def _next(self) -> Mapping[str, Any]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message

    async def wait_gone(self) -> None:
        """Return when the client has closed its connection; call only after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
