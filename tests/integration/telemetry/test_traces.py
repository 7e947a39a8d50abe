"""Spans as a receiver gets them: one trace from the client to the attempt, links where time has passed."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.telemetry.conftest import Service
from tests.support.databases import Database
from tests.support.eventually import eventually_sync
from tests.support.otlp_receiver import OtlpReceiver, Span

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=a1,other=b2", "X-Request-ID": "req-77"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}


def one(receiver: OtlpReceiver, name: str, **attributes: Any) -> Span:
    """The only span so called, once it has arrived."""
    eventually_sync(lambda: receiver.spans(name, **attributes), message=f"a span {name} {attributes}")
    (span,) = receiver.spans(name, **attributes)
    return span


def test_one_trace_leads_from_the_client_to_the_attempt(traced: Callable[..., Service], receiver: OtlpReceiver) -> None:
    service = traced()
    task_id = service.submit("say", {"a": 1}, headers=SAMPLED)
    assert service.final(task_id)["status"] == "done"
    process = one(receiver, "process default", bobrai__task__id=task_id)
    serve = one(receiver, "POST /api/v1/tasks")
    send = one(receiver, "send default")
    assert {span.trace_id for span in (serve, send, process)} == {TRACE}
    assert serve.parent_id == PARENT
    assert send.parent_id == process.parent_id == serve.span_id
    assert (serve.kind, send.kind, process.kind) == ("server", "producer", "consumer")
    assert (serve.service, send.service, process.service) == ("bobrai-api", "bobrai-dispatcher", "bobrai-worker")
    assert serve.trace_state == process.trace_state == "vendor=a1,other=b2"
    assert (
        serve.attributes
        | {
            "http.request.method": "POST",
            "http.route": "/api/v1/tasks",
            "http.response.status_code": 201,
            "url.path": "/api/v1/tasks",
            "url.scheme": "http",
            "network.protocol.version": "1.1",
        }
        == serve.attributes
    )
    assert (
        send.attributes
        | {
            "messaging.system": "rabbitmq",
            "messaging.operation.type": "send",
            "messaging.operation.name": "send",
            "messaging.destination.name": "default",
            "messaging.batch.message_count": 1,
            "bobrai.messages.confirmed": 1,
        }
        == send.attributes
    )
    assert (
        process.attributes
        | {
            "messaging.system": "rabbitmq",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": "default",
            "messaging.message.id": str(task_id),
            "messaging.message.conversation_id": "req-77",
            "bobrai.task.type": "say",
            "bobrai.task.attempt": 1,
            "bobrai.task.outcome": "done",
        }
        == process.attributes
    )
    assert not any(span.failed or span.links for span in (serve, send, process))


def test_log_lines_carry_the_ids_of_their_span(traced: Callable[..., Service], receiver: OtlpReceiver) -> None:
    service = traced()
    for type_ in ("say", "threaded"):
        task_id = service.submit(type_, headers=SAMPLED)
        service.final(task_id)
        span = one(receiver, "process default", bobrai__task__id=task_id)
        own = [line for line in service.lines() if line["event"] == "by logging" and line["task_id"] == task_id]
        assert [(line["trace_id"], line["span_id"], line["request_id"]) for line in own] == [
            (TRACE, span.span_id, "req-77")
        ]
    request = [line for line in service.lines() if line["event"] == "http.request" and line["method"] == "POST"]
    eventually_sync(lambda: len(receiver.spans("POST /api/v1/tasks")) == 2, message="both submissions")
    spans = {span.span_id for span in receiver.spans("POST /api/v1/tasks")}
    assert {line["span_id"] for line in request} == spans
    assert {line["trace_id"] for line in request} == {TRACE}


def test_retries_and_replays_are_linked_not_children(traced: Callable[..., Service], receiver: OtlpReceiver) -> None:
    service = traced()
    task_id = service.submit("unsteady", {"until": 3}, headers=SAMPLED)
    assert service.final(task_id)["result"] == 3
    assert service.call("POST", f"/api/v1/tasks/{task_id}/replay")[0] == 200
    assert service.final(task_id)["attempt"] == 4
    serve = one(receiver, "POST /api/v1/tasks")
    attempts = [one(receiver, "process default", bobrai__task__attempt=number) for number in (1, 2, 3, 4)]
    assert (attempts[0].trace_id, attempts[0].parent_id, attempts[0].links) == (TRACE, serve.span_id, ())
    for later in attempts[1:]:
        assert later.parent_id == ""
        assert later.links == ((TRACE, serve.span_id),)
    assert len({span.trace_id for span in attempts}) == 4
    assert [span.attributes["bobrai.task.outcome"] for span in attempts] == ["retry", "retry", "done", "done"]
    assert [span.failed for span in attempts] == [True, True, False, False]
    assert attempts[0].attributes["error.type"] == "ValueError"
    linked = [span for span in receiver.spans("send default") if span.links]
    assert {link for span in linked for link in span.links} == {(TRACE, serve.span_id)}


def test_a_task_that_waited_long_is_linked(traced: Callable[..., Service], receiver: OtlpReceiver) -> None:
    service = traced(BOBRAI_TRACE_LINK_AFTER_SECONDS="0.5")
    task_id = service.submit("say", headers=SAMPLED, delay_seconds=0.6)
    service.final(task_id)
    serve = one(receiver, "POST /api/v1/tasks")
    for span in (one(receiver, "process default"), one(receiver, "send default")):
        assert span.trace_id != TRACE
        assert span.parent_id == ""
        assert span.links == ((TRACE, serve.span_id),)
        assert span.seconds < 0.5


def test_what_was_not_sampled_stays_so(traced: Callable[..., Service], receiver: OtlpReceiver) -> None:
    service = traced()
    unsampled = service.submit("unsteady", {"until": 2}, headers=UNSAMPLED)
    service.final(unsampled)
    sampled = service.submit("say", headers=SAMPLED)
    service.final(sampled)
    one(receiver, "process default", bobrai__task__id=sampled)
    assert receiver.spans("process default", bobrai__task__id=unsampled) == []
    one(receiver, "POST /api/v1/tasks")


def test_the_standard_sampler_and_name_are_heard(traced: Callable[..., Service], receiver: OtlpReceiver) -> None:
    service = traced(
        OTEL_TRACES_SAMPLER="parentbased_always_off", OTEL_SERVICE_NAME="mine", OTEL_EXPORTER_OTLP_COMPRESSION="gzip"
    )
    for headers in ({}, SAMPLED):
        service.final(service.submit("say", headers=headers))
    one(receiver, "process default")
    assert {(span.service, span.trace_id) for span in receiver.spans()} == {("mine", TRACE)}


def test_handlers_have_the_attempts_span(traced: Callable[..., Service], receiver: OtlpReceiver) -> None:
    service = traced()
    for type_, name in (("spanning", "own work"), ("spanning-thread", "own work in a thread")):
        task_id = service.submit(type_, headers=SAMPLED)
        assert service.final(task_id)["status"] == "done"
        own = one(receiver, name)
        assert own.trace_id == TRACE
        assert own.parent_id == one(receiver, "process default", bobrai__task__id=task_id).span_id
        (line,) = [line for line in service.lines() if line["event"] == "inside" and line["task_id"] == task_id]
        assert line["span_id"] == own.span_id


async def test_follow_up_tasks_come_after_their_parents_attempt(
    traced: Callable[..., Service], receiver: OtlpReceiver, database: Database
) -> None:
    service = traced()
    for type_ in ("parent", "parent-process"):
        parent_id = service.submit(type_, {"of": type_}, headers=SAMPLED)
        assert service.final(parent_id)["status"] == "done"
        [child_id] = [row["id"] for row in await database.fetch("SELECT id FROM tasks WHERE parent_id = $1", parent_id)]
        assert service.final(child_id)["status"] == "done"
        span = one(receiver, "process default", bobrai__task__id=parent_id)
        child = one(receiver, "process default", bobrai__task__id=child_id)
        assert (child.trace_id, child.parent_id) == (TRACE, span.span_id)
        line = next(line for line in service.lines() if line["event"] == "by ctx" and line["task_id"] == child_id)
        assert line["request_id"] == "req-77"


async def test_what_runs_alone_is_in_the_attempts_span(
    traced: Callable[..., Service], receiver: OtlpReceiver, database: Database
) -> None:
    service = traced()
    kinds = ("spanning", "spanning-then-raising", "deadly")
    ids = [service.submit(kind, headers=SAMPLED, delay_seconds=3600, max_attempts=1) for kind in kinds]
    await database.execute("UPDATE tasks SET losses = 1, run_at = now()")
    await database.execute("UPDATE outbox SET due_at = now()")
    await database.execute("NOTIFY bobrai_outbox")
    assert [service.final(task_id)["status"] for task_id in ids] == ["done", "failed", "failed"]
    spans = [one(receiver, "process default", bobrai__task__id=task_id) for task_id in ids]
    assert [span.attributes.get("error.type") for span in spans] == [None, "ValueError", "ProcessDied"]
    for span, name in zip(spans, ("own work", "own work that fails"), strict=False):
        own = one(receiver, name)
        assert (own.trace_id, own.parent_id) == (span.trace_id, span.span_id)


def test_a_batch_from_many_requests_has_links(service: Service, receiver: OtlpReceiver) -> None:
    service.start(workers=1, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
    ids = [service.submit("say", delay_seconds=1.0) for _ in range(4)]
    for task_id in ids:
        service.final(task_id)
    eventually_sync(lambda: len(receiver.spans("process default")) == 4, message="four attempts")
    eventually_sync(
        lambda: (
            len(receiver.spans("POST /api/v1/tasks")) == 4
            and sum(span.attributes["bobrai.hints"] for span in receiver.spans("send default")) == 4
        ),
        message="four submissions and what was sent of them",
    )
    submits = {(span.trace_id, span.span_id) for span in receiver.spans("POST /api/v1/tasks")}
    sends = receiver.spans("send default")
    seen = {link for span in sends for link in span.links} | {(span.trace_id, span.parent_id) for span in sends}
    assert submits <= seen
    assert sum(span.attributes["bobrai.hints"] for span in sends) == 4


def test_exemplars_lead_from_a_bucket_to_its_trace(traced: Callable[..., Service]) -> None:
    import urllib.request

    service = traced()
    service.final(service.submit("say", headers=SAMPLED))
    for process, metric in (
        (service.workers[0], "bobrai_attempt_duration_seconds_bucket"),
        (service.workers[0], "bobrai_task_duration_seconds_bucket"),
        (service.api, "bobrai_http_request_duration_seconds_bucket"),
    ):
        request = urllib.request.Request(
            f"{process.url}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        with urllib.request.urlopen(request, timeout=5) as response:
            assert response.headers["content-type"].startswith("application/openmetrics-text")
            text = response.read().decode()
        lines = [line for line in text.splitlines() if line.startswith(metric) and "trace_id" in line]
        assert any(f'# {{trace_id="{TRACE}"}}' in line for line in lines), metric
        assert "trace_id" not in process.get("/metrics")[1].decode()


def test_a_receiver_that_hangs_or_is_away_hurts_no_task(traced: Callable[..., Service], receiver: OtlpReceiver) -> None:
    receiver.hang()
    service = traced(OTEL_EXPORTER_OTLP_TIMEOUT="1")
    for task_id in [service.submit("say", headers=SAMPLED) for _ in range(20)]:
        assert service.final(task_id)["status"] == "done"
    eventually_sync(
        lambda: all(service.metric("bobrai_spans_dropped_total", each) for each in (service.api, service.workers[0])),
        message="dropped spans are counted",
    )
    for process in service.all():
        before = time.monotonic()
        process.terminate()
        assert process.wait(20) == 0
        assert time.monotonic() - before < 12.0
    said = [line["event"] for line in service.workers[0].log_events() if line["event"].startswith("tracing.")]
    assert said == ["tracing.started", "tracing.export_failed"]


def test_spans_that_find_no_room_are_counted(traced: Callable[..., Service], receiver: OtlpReceiver) -> None:
    receiver.hang()
    service = traced(OTEL_BSP_MAX_QUEUE_SIZE="8", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2", OTEL_EXPORTER_OTLP_TIMEOUT="600")
    for task_id in [service.submit("say", headers=SAMPLED) for _ in range(20)]:
        assert service.final(task_id)["status"] == "done"
    # each process ended 20 spans or more: at most two are being sent and eight wait, and the receiver has answered none
    for process in (service.api, service.workers[0]):
        eventually_sync(
            lambda process=process: service.metric("bobrai_spans_dropped_total", process, reason="queue_full") >= 10,
            message="spans that find no room are counted",
        )
        assert service.metric("bobrai_spans_dropped_total", process, reason="export_failed") == 0


def test_spans_that_wait_are_sent_at_the_end(traced: Callable[..., Service], receiver: OtlpReceiver) -> None:
    service = traced(OTEL_BSP_SCHEDULE_DELAY="600000")
    service.final(service.submit("say", headers=SAMPLED))
    assert receiver.spans() == []
    for process in service.all():
        process.terminate()
    for process in service.all():
        assert process.wait(20) == 0
    assert {span.name for span in receiver.spans()} >= {"POST /api/v1/tasks", "send default", "process default"}


def test_off_means_that_nothing_of_it_is_even_imported(service: Service) -> None:
    service.start()
    task_id = service.submit("imported", headers=SAMPLED)
    assert service.final(task_id)["result"] == []
    assert service.submit("say") > 0
    assert [line for line in service.lines() if "trace_id" in line] == []


def test_the_clients_trace_reaches_workers_also_past_an_api_without_traces(
    service: Service, receiver: OtlpReceiver
) -> None:
    service.start()
    (worker,) = service.workers
    worker.terminate()
    assert worker.wait() == 0
    service.processes.start("worker", environment={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint})
    task_id = service.submit("say", headers=SAMPLED)
    service.final(task_id)
    span = one(receiver, "process default", bobrai__task__id=task_id)
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"},
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "many", "OTEL_TRACES_EXPORTER": "otlp"},
    ],
)
def test_what_cannot_be_exported_is_told(service: Service, environment: dict[str, str]) -> None:
    service.start(**environment)
    told = [line for line in service.api.log_events() if line["event"] == "tracing.unavailable"]
    assert len(told) == 1
    assert next(iter(environment.values())) in told[0]["reason"]
