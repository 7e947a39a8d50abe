"""Traces as the other rooms see them: off, and then no OpenTelemetry is even imported, or on.

In: the standard ``OTEL_*`` variables, requests, published bundles and attempts. Out: spans (`spans.py`), made in
`tracing.py`, the only module that imports OpenTelemetry. Rooms ask ``traces.on`` first, which is all that traces cost
while they are off.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bobrai.domain.task import Claim
from bobrai.telemetry import logs
from bobrai.telemetry.spans import AttemptSpan, Origin, PublishSpan, ServerSpan, Tracer

log = logs.get_logger(__name__)

on = False
_EXPORTERS: Final = frozenset({"otlp", "console"})
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


_tracer: Tracer | None = None


def start(process: str, version: str, environ: Mapping[str, str]) -> None:
    """Make traces when the standard variables ask for them; raises nothing."""
    exporter, reason = _wanted(environ)
    if reason:
        log.warning("tracing.unavailable", reason=reason)
    if not exporter or reason:
        return
    try:
        from bobrai.telemetry import tracing
    except ImportError as error:
        log.warning("tracing.unavailable", reason=f"{error.name} is not installed: pip install 'bobrai[tracing]'")
        return
    try:
        use(tracing.OpenTelemetry(process, version, exporter))
    except ValueError as error:  # a variable that the SDK cannot use
        log.warning("tracing.unavailable", reason=str(error))
        return
    log.info("tracing.started", exporter=exporter)


def use(tracer: Tracer | None) -> None:
    """Make spans with this tracer from now on; None: make none."""
    global on, _tracer
    _tracer = tracer
    on = tracer is not None


def descriptors() -> Iterable[int]:
    """Return the descriptors of the connections that spans are sent over."""
    return () if _tracer is None else _tracer.descriptors()


def stop() -> None:
    """Send what is left, within 1.5 seconds, and make no more spans."""
    tracer = _tracer
    use(None)
    if tracer is not None:
        tracer.stop()


def serve(method: str, route: str, scope: Mapping[str, Any], given: str) -> ServerSpan | None:
    """Begin a request (see `Tracer`)."""
    return None if _tracer is None else _tracer.serve(method, route, scope, given)


def publish(
    queue: str, origins: Sequence[Origin], hints: int, messages: int, parent_age_seconds: float
) -> PublishSpan | None:
    """Begin to publish (see `Tracer`)."""
    return None if _tracer is None else _tracer.publish(queue, origins, hints, messages, parent_age_seconds)


def attempt(claim: Claim, link_after_seconds: float) -> AttemptSpan | None:
    """Begin an attempt (see `Tracer`)."""
    return None if _tracer is None else _tracer.attempt(claim, link_after_seconds)


def within(context: str) -> AttemptSpan | None:
    """Return an attempt that another process began, and ends (see `Tracer`); None when that makes no traces."""
    return None if _tracer is None or not context else _tracer.within(context)


def _wanted(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the exporter that is asked for, or nothing, and why it cannot be had."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "", ""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if not exporter and any(environ.get(name, "").strip() for name in _ENDPOINTS):
        exporter = "otlp"
    if exporter in {"", "none"}:
        return "", ""
    if exporter not in _EXPORTERS:
        return exporter, f"OTEL_TRACES_EXPORTER is {exporter!r}; bobrAI knows otlp, console and none"
    protocol = next((environ[name].strip() for name in _PROTOCOLS if environ.get(name, "").strip()), "http/protobuf")
    if exporter == "otlp" and protocol != "http/protobuf":
        return exporter, f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; bobrAI speaks http/protobuf (port 4318)"
    return exporter, ""
