"""Spans, by OpenTelemetry: the only module that imports it, loaded only when traces are on.

In: requests, published bundles, attempts (see `spans.py`). Out: spans over OTLP, sent by a thread of the SDK.
Sampling, exporter and limits are what the ``OTEL_*`` variables say. Names follow the semantic conventions of HTTP and
messaging.
"""

import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE, OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bobrai.domain.task import Claim, Outcome, OutcomeKind
from bobrai.telemetry import logs, masking, metrics
from bobrai.telemetry.spans import Origin

log = logs.get_logger(__name__)

STOP_SECONDS: Final = 1.5
MOST_LINKS: Final = 128  # of one span, as the SDK's own limit
_QUEUE_SIZE: Final = 2_048  # the default of OTEL_BSP_MAX_QUEUE_SIZE, by the specification
_SYSTEM: Final = "rabbitmq"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
_FAILED: Final = frozenset({OutcomeKind.FAILED, OutcomeKind.RETRY})
_propagator = TraceContextTextMapPropagator()


class OpenTelemetry:
    """Makes spans and sends them (see `spans.Tracer`)."""

    def __init__(self, process: str, version: str, exporter: str) -> None:
        self._provider = TracerProvider(resource=_resource(process, version), shutdown_on_exit=False)
        self._provider.sampler = _FollowLinks(self._provider.sampler)
        self._session = _session() if exporter == "otlp" else None
        self._provider.add_span_processor(_Batches(_Watched(_exporter(exporter, self._session)), _queue_size()))
        self._tracer = self._provider.get_tracer("bobrai", version)
        trace.set_tracer_provider(self._provider)  # for spans that handlers make
        logs.trace_with(_ids)

    def serve(self, method: str, route: str, scope: Mapping[str, Any], given: str) -> "_ServerSpan":
        """Begin a request."""
        known = method in _METHODS
        return _ServerSpan(
            self._tracer.start_span(
                f"{method if known else 'HTTP'} {route}",
                context=_context(given),
                kind=SpanKind.SERVER,
                attributes={
                    "http.request.method": method if known else "_OTHER",
                    "http.route": route,
                    "url.path": masking.mask(scope["path"]),
                    "url.scheme": scope.get("scheme", "http"),
                    "network.protocol.version": scope.get("http_version", "1.1"),
                },
            )
        )

    def publish(
        self, queue: str, origins: Sequence[Origin], hints: int, messages: int, parent_age_seconds: float
    ) -> "_PublishSpan":
        """Begin to publish."""
        only = origins[0] if len(origins) == 1 and origins[0].age_seconds <= parent_age_seconds else None
        return _PublishSpan(
            self._tracer.start_span(
                f"send {queue}",
                context=Context() if only is None else _context(only.trace_context),
                links=() if only is not None else _links([origin.trace_context for origin in origins]),
                kind=SpanKind.PRODUCER,
                attributes={
                    "messaging.system": _SYSTEM,
                    "messaging.operation.name": "send",
                    "messaging.operation.type": "send",
                    "messaging.destination.name": queue,
                    "messaging.batch.message_count": messages,
                    "bobrai.hints": hints,
                },
            )
        )

    def attempt(self, claim: Claim, link_after_seconds: float) -> "_AttemptSpan":
        """Begin an attempt: in the submission's trace when it follows soon, else in its own, linked to it."""
        follows = claim.attempt == 1 and claim.age_seconds <= link_after_seconds
        attributes: dict[str, str | int | float] = {
            "messaging.system": _SYSTEM,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": claim.queue,
            "messaging.message.id": str(claim.task_id),
            "messaging.message.conversation_id": claim.request_id,
            "bobrai.task.id": claim.task_id,
            "bobrai.task.type": claim.type,
            "bobrai.task.attempt": claim.attempt,
            "bobrai.task.queue_wait": claim.wait_seconds,
        }
        return _AttemptSpan(
            self._tracer.start_span(
                f"process {claim.queue}",
                context=_context(claim.trace_context) if follows else Context(),
                links=() if follows else _links([claim.trace_context]),
                kind=SpanKind.CONSUMER,
                attributes=attributes,
            )
        )

    def within(self, context: str) -> "_AttemptSpan":
        """Return an attempt that another process began."""
        return _AttemptSpan(trace.get_current_span(_context(context)))

    def descriptors(self) -> Iterator[int]:
        """Return the descriptors of the connections that wait for the next spans."""
        for adapter in self._session.adapters.values() if self._session is not None else ():
            for manager in (adapter.poolmanager, *adapter.proxy_manager.values()):
                for key in manager.pools.keys():  # noqa: SIM118 - it is no mapping that iterates
                    waiting = manager.pools[key].pool
                    for connection in list(waiting.queue) if waiting is not None else ():
                        if connection is not None and connection.sock is not None:
                            yield connection.sock.fileno()

    def stop(self) -> None:
        """Send what is left, within 1.5 seconds: a receiver that hangs must not keep the process."""
        logs.trace_with(None)
        thread = threading.Thread(target=self._provider.shutdown, name="tracing-stop", daemon=True)
        thread.start()
        thread.join(STOP_SECONDS)


class _Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._ids = span.get_span_context()

    @property
    def trace_id(self) -> str:
        """The id under which a trace shows it."""
        return f"{self._ids.trace_id:032x}" if self._ids.trace_flags.sampled else ""

    @property
    def context(self) -> str:
        """Where it stands in its trace: traceparent, and tracestate after a space."""
        ids = self._ids
        parent = f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags & 3:02x}"
        return f"{parent} {ids.trace_state.to_header()}" if ids.trace_state else parent

    def enter(self) -> None:
        """Make it the current span of this asyncio task, until the task ends."""
        context.attach(trace.set_span_in_context(self._span))

    def _fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))


class _ServerSpan(_Span):
    def end(self, status: int) -> None:
        """It was answered."""
        if self._span.is_recording():
            self._span.set_attribute("http.response.status_code", status)
            if status >= 500:
                self._fail(str(status))
        self._span.end()


class _PublishSpan(_Span):
    def end(self, *, confirmed: int, refused: int, error: str = "") -> None:
        """The broker has answered, or has not."""
        if self._span.is_recording():
            self._span.set_attributes({"bobrai.messages.confirmed": confirmed, "bobrai.messages.refused": refused})
            if error or refused:
                self._fail(error or "refused")
        self._span.end()


class _AttemptSpan(_Span):
    def end(self, outcome: Outcome | None) -> None:
        """It has ended. An exception's message may quote a payload, so its type is all that a span tells."""
        if self._span.is_recording():
            self._span.set_attribute("bobrai.task.outcome", "lost" if outcome is None else outcome.kind.value)
            if outcome is not None and outcome.kind in _FAILED:
                self._fail("_OTHER" if outcome.error is None else outcome.error.type)
        self._span.end()


class _FollowLinks(Sampler):
    """Lets a trace that only links to another one be sampled as that one was; all else is the configured sampler's."""

    def __init__(self, configured: Sampler) -> None:
        self._configured = configured

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        """Decide about one span."""
        if links and not trace.get_current_span(parent_context).get_span_context().is_valid:
            sampled = any(link.context.trace_flags.sampled for link in links)
            return SamplingResult(Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP, attributes)
        return self._configured.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Name the sampler."""
        return f"FollowLinks{{{self._configured.get_description()}}}"


class _Watched(SpanExporter):
    """Says once that spans cannot be sent, and counts what is dropped."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        self._dropped = metrics.SPANS_DROPPED.labels("export_failed")
        self.taken = 0  # spans that left the SDK's queue

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; called by the SDK's thread."""
        self.taken += len(spans)
        result = self._exporter.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed:
            self._dropped.inc(len(spans))
            if not self._failing:
                log.warning("tracing.export_failed", spans=len(spans))
        elif self._failing:
            log.info("tracing.export_recovered")
        self._failing = failed
        return result

    def shutdown(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what the exporter holds."""
        return self._exporter.force_flush(timeout_millis)


class _Batches(BatchSpanProcessor):
    """Counts the spans that find the SDK's queue full, which it drops without a number."""

    def __init__(self, exporter: _Watched, capacity: int) -> None:
        super().__init__(exporter, max_queue_size=capacity)
        self._capacity = capacity
        self._exporter = exporter
        self._lock = threading.Lock()  # handlers end spans in their own threads
        self._queued = 0
        self._dropped = metrics.SPANS_DROPPED.labels("queue_full")

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that is sampled; the oldest makes room."""
        if span.context is not None and span.context.trace_flags.sampled:
            with self._lock:
                if self._queued - self._exporter.taken < self._capacity:
                    self._queued += 1
                else:
                    self._dropped.inc()
        super().on_end(span)


def _session() -> Any:
    """Return what the exporter sends with, to know its connections; None when a variable has it made elsewhere."""
    try:
        import requests
    except ImportError:  # the exporter may come to use another library
        return None
    if any(name.endswith("_CREDENTIAL_PROVIDER") and value for name, value in os.environ.items()):
        return None
    return requests.Session()


def _exporter(name: str, session: Any) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter()
    import logging

    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    # They log every try; `_Watched` says it once.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    return OTLPSpanExporter(session=session)


def _queue_size() -> int:
    given = os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, "").strip()
    try:
        return int(given) if given else _QUEUE_SIZE
    except ValueError:
        raise ValueError(f"{OTEL_BSP_MAX_QUEUE_SIZE} is {given!r}, not a number") from None


def _resource(process: str, version: str) -> Resource:
    own = {
        "service.name": f"bobrai-{process}",
        "service.namespace": "bobrai",
        "service.version": version,
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
    }
    if OTEL_SERVICE_NAME in os.environ:
        del own["service.name"]
    said = OTELResourceDetector().detect().attributes
    return Resource.create({**own, **said})


def _context(text: str) -> Context:
    """Return the context of a row's or a client's words; empty words give an empty one."""
    parent, _, state = text.partition(" ")
    return _propagator.extract({"traceparent": parent, "tracestate": state}, Context()) if parent else Context()


def _span_context(text: str) -> SpanContext:
    return trace.get_current_span(_context(text)).get_span_context()


def _links(texts: Sequence[str]) -> list[Link]:
    found = [_span_context(text) for text in texts[:MOST_LINKS] if text]
    return [Link(each) for each in found if each.is_valid]


def _ids() -> Mapping[str, str]:
    ids = trace.get_current_span().get_span_context()
    return {"trace_id": f"{ids.trace_id:032x}", "span_id": f"{ids.span_id:016x}"} if ids.is_valid else {}
