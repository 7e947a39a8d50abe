"""One HTTP connection: uvicorn's, with bounds on what a client may take, and one write per answer.

In: bytes. Out: requests for the application, as fast as they are answered. A head has a size, a number of lines and a
time; who is silent, drips, or does not read is let go by ``connections``; what is no request gets a problem document.
"""

from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from bobrai.runtime import problem
from bobrai.runtime.writer import Writer
from bobrai.telemetry import logs

if TYPE_CHECKING:
    from bobrai.runtime.server import HttpConfig

log = logs.get_logger(__name__)

# Fed to the parser at a time, so that no peer's bytes keep the others from being served.
_PIECE_BYTES: Final = 64 * 1024
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_SMALL_HEAD: Final = 4 * 1024  # not worth counting: the connection itself costs more


class Refusal(NamedTuple):
    """What is told a client whose bytes never reach the application."""

    kind: str
    status: int
    title: str
    detail: str


HEAD_TOO_LARGE: Final = Refusal(
    "head-too-large",
    431,
    "Request head too large",
    "The request line and the headers may have at most {head_bytes} bytes and {head_lines} lines.",
)
HEAD_TIMEOUT: Final = Refusal(
    "head-timeout", 408, "Request timeout", "The request line and the headers did not arrive within {head_seconds:g} s."
)
TOO_MANY_HEADS: Final = Refusal(
    "too-many-heads", 503, "Too many large heads", "Too many requests with long headers are under way; try again."
)
NOT_HTTP: Final = Refusal("bad-request", 400, "Bad request", "This is not a request in HTTP/1.1")
ONE_HOST: Final = Refusal("bad-request", 400, "Bad request", "A request in HTTP/1.1 needs a Host header, and one only")
# What the parser says when it was told to stop, or sees the first words of HTTP/2: nothing that would help a client.
_UNTOLD: Final = ("callback error", "Pause on")
_RETRY_SECONDS: Final = b"2"
_GOODBYE_SECONDS: Final = 1.0
REFUSALS: Final = (NOT_HTTP, HEAD_TIMEOUT, HEAD_TOO_LARGE, TOO_MANY_HEADS)  # as the documentation lists them


class _Refused(Exception):
    """Ends the parser from one of its callbacks; the connection knows why."""


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    config: "HttpConfig"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waits = self.config.waits
        self._limits = self.config.limits
        self._unfed = bytearray()  # read, and not parsed yet: requests before it are not answered
        self._deaf = False  # nothing that still comes is looked at
        self._in_head = True  # the parser is in a head, or between two messages
        self._head_begun = False
        self._complete = True  # the newest request has arrived with its body
        self._unproductive = 0  # bytes of an unfinished head; in a body, of what is not body
        self._heads_bytes = 0  # that this connection counts for with its server
        self._moved = False  # the piece that is parsed ended a head or a message, or had a part of a body
        self._begins = 0  # heads that began in this piece
        self._lines = 0
        self._offers = False  # the request whose head was parsed offers another protocol
        self._retold = False  # its head is parsed once more
        self._last_call = False  # the next request is the last
        self._running: RequestResponseCycle | None = None
        self._why: Refusal | None = None
        self.address = ""

    # --- the connection --------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        self._writer = Writer(transport, self, self.loop)
        super().connection_made(self._writer)  # type: ignore[arg-type]
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self.waits.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request under way, and forget the connection."""
        self._deaf = True
        self._unfed.clear()
        self.waits.lost(self)
        self._release_heads(0)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Note that the client takes no more of an answer, for now."""
        super().pause_writing()
        self.waits.stalled(self)

    def resume_writing(self) -> None:
        """Note that the client takes its answer again."""
        super().resume_writing()
        self.waits.flowing(self)

    def shutdown(self) -> None:
        """Close after one more answer, which says so; who is idle may ask for it a while longer.

        A request that is on its way here meets no closed connection then, and the next one goes elsewhere.
        """
        seconds = self._limits.last_call_seconds
        is_idle = self.cycle is None or self.cycle.response_complete
        if seconds and is_idle and not self.transport.is_closing():
            self._last_call = True
            self.loop.call_later(seconds, self._end_last_call)
        else:
            self.close_soon()

    def close_soon(self) -> None:
        """Close once the request under way, if any, is answered; who is answered and still sends is cut off."""
        if self.transport.is_closing():
            self.transport.abort()
            return
        super().shutdown()
        if self._writer.is_tls and self.transport.is_closing():
            # Saying goodbye in TLS takes two; who does not answer would hold up the end.
            self.loop.call_later(_GOODBYE_SECONDS, self.transport.abort)

    def _end_last_call(self) -> None:
        if not self._head_begun and not self.transport.is_closing():
            self.close_soon()

    @property
    def sends(self) -> bool:
        """Whether the client may be sending still."""
        return self._deaf or self._head_begun or not self._complete

    @property
    def holds(self) -> bool:
        """Whether bytes that were read have not been parsed."""
        return bool(self._unfed)

    def parting(self) -> None:
        """Note that nothing more will be sent, while the client has yet to take an answer or to end."""
        self.waits.closing(self)

    def unsent(self) -> int:
        """Return how many bytes of answers the client has not taken."""
        return self._writer.untaken()

    def end(self) -> None:
        """Close: no request came."""
        self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def too_slow(self) -> None:
        """Close, and say why."""
        self._refuse(HEAD_TIMEOUT)

    def crowded_out(self) -> None:
        """Close, because unfinished heads take too much memory."""
        self._refuse(TOO_MANY_HEADS)

    # --- bytes -----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what came, in pieces, and only as fast as requests are answered."""
        if self._deaf or self.transport.is_closing():
            return
        self.waits.silent.leave(self)
        self.waits.idle.leave(self)
        if self._unfed or len(data) > self._most():
            self._unfed += data
            self._feed_held()
        else:
            self._feed(data)

    def _most(self) -> int:
        """Return how many bytes the parser may have now."""
        return self._limits.head_bytes - self._unproductive if self._in_head else _PIECE_BYTES

    def _feed_held(self) -> None:
        while self._unfed and not self.pipeline and not self._deaf and not self.transport.is_closing():
            size = self._most()
            piece = bytes(self._unfed[:size])
            del self._unfed[:size]
            self._feed(piece)
        if self._unfed:
            self.flow.pause_reading()
        elif not self.flow.read_paused:
            self.transport.resume_reading()

    def _feed(self, piece: bytes) -> None:
        between = self._in_head and not self._head_begun
        self._begins = 0
        self._moved = False
        try:
            self._parse(piece)
        except httptools.HttpParserError as error:
            untold = self._why or any(words in str(error) for words in _UNTOLD)
            self._refuse(self._why or NOT_HTTP, "" if untold else f": {error}")
            return
        if self._head_begun:
            # Where in the piece a head began is not known: it counts in full only when nothing else was there.
            if self._begins == 0 or (between and self._begins == 1):
                self._count(len(piece))
        elif not self._moved:
            self._count(len(piece))

    def _parse(self, piece: bytes) -> None:
        while piece:
            try:
                self.parser.feed_data(piece)
                return
            except httptools.HttpParserUpgrade as offer:
                piece = piece[offer.args[0] :]
            # Nobody takes up what a client offers to speak instead (Java's offers HTTP/2 with every first request), but
            # the parser has left the body alone: another one, told of the same head, reads it.
            framing = [header for header in self.headers if header[0] in _FRAMING] or [(b"content-length", b"0")]
            lines = b"".join(b"%s: %s\r\n" % header for header in framing)
            self.parser = httptools.HttpRequestParser(self)
            self._retold = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % lines)

    def _count(self, size: int) -> None:
        """Count bytes that brought a request no further, and refuse it when they are too many."""
        self._unproductive += size
        if self._unproductive >= self._limits.head_bytes:
            self._refuse(HEAD_TOO_LARGE)
        elif self._in_head:
            if self.cycle is None or self.cycle.response_complete:
                self.waits.heads.enter(self)
            self._heads_bytes += size
            self.waits.hold(size)

    # --- what the parser finds -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._retold:
            return
        super().on_message_begin()
        self._begins += 1
        self._head_begun = True
        self._lines = 0

    def on_url(self, url: bytes) -> None:
        """Keep a part of the target."""
        if not self._retold:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what follows a chunked body is dropped."""
        if self._retold:
            return
        self._lines += 1
        if self._lines > self._limits.head_lines:
            self._refuse_in_parser(HEAD_TOO_LARGE)
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application."""
        if self._retold:
            self._retold = self._offers = False
            return
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            self._refuse_in_parser(ONE_HOST)
        self._offers = bool(self.parser.should_upgrade())
        self.waits.heads.leave(self)
        self._in_head = self._head_begun = self._complete = False
        self._unproductive = 0
        self._moved = True
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > _SMALL_HEAD:
            more = max(size - self._heads_bytes, 0)
            self._heads_bytes += more
            if not self.waits.hold(more):
                self._refuse_in_parser(TOO_MANY_HEADS)
        super().on_headers_complete()
        if self._last_call and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Hand on a part of the body."""
        self._unproductive = 0
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request has arrived entirely."""
        if self._offers:
            return  # its head has; see _parse
        self._in_head = self._complete = self._moved = True
        self._unproductive = 0
        super().on_message_complete()
        if self in self.waits.rests.since:
            self.waits.rests.leave(self)
            self.waits.idle.enter(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _release_heads(self, kept: int) -> None:
        self.waits.release(self._heads_bytes - kept)
        self._heads_bytes = kept

    def _unsupported_upgrade_warning(self) -> None:
        pass

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for it."""
        self.server_state.total_requests += 1
        if self._heads_bytes:
            self._release_heads(self._unproductive if self._in_head else 0)
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif not self._complete:
            self.waits.rests.enter(self)
        elif self._head_begun:
            self.waits.heads.enter(self)
        else:
            self.waits.idle.enter(self)
        if self._unfed:
            self.loop.call_soon(self._feed_held)

    # --- refusals --------------------------------------------------------------------------------------------------

    def _refuse_in_parser(self, refusal: Refusal) -> NoReturn:
        self._why = refusal
        raise _Refused

    def _refuse(self, refusal: Refusal, more: str = "") -> None:
        """Answer what cannot become a request, and hear no more; requests before it are answered first."""
        self._deaf = True
        self._unfed.clear()
        self._release_heads(0)
        newest = self.cycle
        if newest is None or newest.response_complete:
            self._answer(refusal, more)
        elif self._complete:  # what cannot be read comes behind a request
            newest.keep_alive = False
        else:
            newest.disconnected = True
            newest.message_event.set()
            if self.pipeline:
                self.pipeline.popleft()
                last = self.pipeline[0][0] if self.pipeline else self._running
                if last is not None:
                    last.keep_alive = False
            elif newest.response_started:
                self.transport.close()
            else:
                self._answer(refusal, more)

    def _answer(self, refusal: Refusal, more: str) -> None:
        request_id = problem.new_request_id()
        log.info("http.refused", status=refusal.status, kind=refusal.kind, request_id=request_id)
        detail = refusal.detail.format(**self._limits._asdict()) + more
        body = problem.document(refusal.kind, refusal.status, refusal.title, detail, request_id)
        headers = [
            *self.server_state.default_headers,
            (b"x-request-id", request_id.encode()),
            (b"content-type", problem.CONTENT_TYPE),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if refusal.status == 503:
            headers.append((b"retry-after", _RETRY_SECONDS))
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[refusal.status] + lines + b"\r\n" + body)
        self.transport.close()
