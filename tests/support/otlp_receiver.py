"""A receiver of traces: real bytes of OTLP over HTTP, decoded as a collector would.

In: POSTs of ExportTraceServiceRequest. Out: the spans, with their attributes as plain values. It can be told to answer
nobody.
"""

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}


@dataclass(frozen=True)
class Span:
    """One span as it was received; ids are hexadecimal."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    failed: bool
    trace_state: str
    seconds: float


class OtlpReceiver:
    """Listens on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.requests = 0
        self._spans: list[Span] = []
        self._answers = threading.Event()
        self._answers.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # connections are kept, as by a collector

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver._take(self.path, self.headers["content-type"], body)
                receiver._answers.wait()
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT must say."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def spans(self, name: str | None = None, **attributes: Any) -> list[Span]:
        """What was received so far: all, or those with this name and these attributes ('.' written as '__')."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        return [
            span
            for span in list(self._spans)
            if name in {None, span.name} and all(span.attributes.get(key) == value for key, value in wanted.items())
        ]

    def hang(self) -> None:
        """Take requests and answer none, until `close`."""
        self._answers.clear()

    def close(self) -> None:
        """End it."""
        self._answers.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _take(self, path: str, content_type: str, body: bytes) -> None:
        assert path == "/v1/traces", path
        assert content_type == "application/x-protobuf", content_type
        self.requests += 1
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            service = {each.key: _value(each.value) for each in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                self._spans += [_span(service, span) for span in scope.spans]


def _span(service: str, span: Any) -> Span:
    return Span(
        service,
        span.name,
        KINDS[span.kind],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        {each.key: _value(each.value) for each in span.attributes},
        span.status.code == 2,
        span.trace_state,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )


def _value(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")
