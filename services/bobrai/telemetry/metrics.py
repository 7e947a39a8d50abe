"""Every metric that bobrAI exports, declared once: its name, what it says, its labels, and which processes export it.

In: counts and durations from the other rooms. Out: the text of ``/metrics``, and the table of docs/metrics.md. Base
units; labels are queue, type, outcome and other closed sets: never a task id, never a client's text. Metrics of the
whole installation (``once=True``) are shown by one dispatcher at a time, however many run.
"""

from typing import Final

from prometheus_client import disable_created_metrics

from bobrai.telemetry.access_metrics import (
    ACCESS_REFUSED as ACCESS_REFUSED,
)
from bobrai.telemetry.access_metrics import (
    ACCESS_THROTTLED as ACCESS_THROTTLED,
)
from bobrai.telemetry.access_metrics import (
    OIDC_KEYS_AGE as OIDC_KEYS_AGE,
)
from bobrai.telemetry.access_metrics import (
    OIDC_KEYS_AGE_LIMIT as OIDC_KEYS_AGE_LIMIT,
)
from bobrai.telemetry.access_metrics import (
    OIDC_UNVERIFIED as OIDC_UNVERIFIED,
)
from bobrai.telemetry.access_metrics import (
    OIDC_USABLE_KEYS as OIDC_USABLE_KEYS,
)
from bobrai.telemetry.access_metrics import (
    OIDC_WAITING as OIDC_WAITING,
)
from bobrai.telemetry.declaring import CATALOGUE as CATALOGUE  # filled here, so others have it from here
from bobrai.telemetry.declaring import (
    EVERY,
    Process,
    counter,
    fast_counter,
    fast_histogram,
    gauge,
    histogram,
    shared_gauge,
)
from bobrai.telemetry.logger import BoundLogger

log: Final = BoundLogger("telemetry.metrics")

# A second series for every counter and histogram, which no dashboard reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

# 1 ms to 1 h: a task may wait or run for any of these.
_TASK_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600,
)  # fmt: skip
_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_CALL_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_TASK: Final = ("queue", "type")
_API: Final[tuple[Process, ...]] = ("api",)
_WORKER: Final[tuple[Process, ...]] = ("worker",)
_SUBMITTING: Final[tuple[Process, ...]] = ("api", "worker")  # a worker for its handlers
_DISPATCHER: Final[tuple[Process, ...]] = ("dispatcher",)
_EXTERNAL: Final[tuple[Process, ...]] = ("external-metrics",)
_BROKER: Final[tuple[Process, ...]] = ("dispatcher", "worker")

# --- tasks: submitted + replayed - finished is what there is ----------------------------------------------------------
TASKS_SUBMITTED = fast_counter("bobrai_tasks_submitted_total", "Tasks accepted and committed.", _TASK, by=_SUBMITTING)
TASKS_DUPLICATE = fast_counter(
    "bobrai_tasks_duplicate_total",
    "Submitted tasks that made none: one of their kind was there.",
    _TASK,
    by=_SUBMITTING,
)
TASKS_REPLAYED = fast_counter(
    "bobrai_tasks_replayed_total", "Final tasks that a client gave a fresh set of attempts.", _TASK, by=_API
)
TASKS_FINISHED = fast_counter(
    "bobrai_tasks_finished_total",
    "Tasks that became final: done, failed or cancelled. The API counts cancels of waiting tasks, the dispatcher tasks"
    " whose worker was lost or whose deadline or expiry passed while they waited, the worker all others.",
    (*_TASK, "outcome"),
    by=EVERY,
)
TASKS_RETRIED = fast_counter(
    "bobrai_tasks_retried_total",
    "Failed attempts after which another one follows, by reason: error, timeout, worker_lost, crashed, memory_limit,"
    " and retry_later of a task that was snoozed too often.",
    (*_TASK, "reason"),
    by=_WORKER,
)
TASK_LOSSES = counter(
    "bobrai_task_losses_total",
    "Starts of tasks that ended with their process. cause: worker_lost, the worker is gone and which of its tasks is to"
    " blame is unknown; process_died, the task ran alone in a process, so it is the culprit.",
    [*_TASK, "cause"],
    by=("worker", "dispatcher"),
)
TASK_SECONDS = fast_histogram(
    "bobrai_task_duration_seconds",
    "From accepted to done, for tasks that were done.",
    _TASK,
    by=_WORKER,
    buckets=_TASK_SECONDS,
)
TASK_WAIT_SECONDS = fast_histogram(
    "bobrai_task_queue_wait_seconds", "From due to claimed, per attempt.", _TASK, by=_WORKER, buckets=_TASK_SECONDS
)
ATTEMPTS_STARTED = fast_counter(
    "bobrai_attempts_started_total", "Attempts whose handler was started.", _TASK, by=_WORKER
)
ATTEMPTS_FINISHED = fast_counter(
    "bobrai_attempts_finished_total",
    "Attempts whose outcome was written: done, failed, retry, snooze (RetryLater, not counted), cancelled, interrupted"
    " (given back, not counted).",
    (*_TASK, "outcome"),
    by=_WORKER,
)
ATTEMPT_SECONDS = fast_histogram(
    "bobrai_attempt_duration_seconds",
    "From the handler's start to its end, whatever the outcome.",
    _TASK,
    by=_WORKER,
    buckets=_TASK_SECONDS,
)

# --- API --------------------------------------------------------------------------------------------------------------
HTTP_REQUESTS = fast_counter(
    "bobrai_http_requests_total",
    "HTTP requests answered; route is the template, status 499 a client that went away.",
    ("method", "route", "status"),
    by=_API,
)
HTTP_REQUEST_SECONDS = fast_histogram(
    "bobrai_http_request_duration_seconds",
    "Time to answer an HTTP request; with ?wait= the wait is included.",
    ("method", "route"),
    by=_API,
    buckets=_CALL_SECONDS,
)
HTTP_REQUESTS_IN_PROGRESS = gauge("bobrai_http_requests_in_progress", "HTTP requests that are being answered.", by=_API)
HTTP_CONNECTIONS_ENDED = counter(
    "bobrai_http_connections_ended_total",
    "Connections that a server ended: silent, head, idle, rest, close, stall: too slow with that; place: too many;"
    " address: too many of one.",
    ["reason"],
    by=(*EVERY, "external-metrics"),
)
SUBMISSIONS_REFUSED = counter(
    "bobrai_submissions_refused_total",
    "Requests to submit that were refused, by reason: invalid, queue_full, principal_full,"
    " idempotency_mismatch, unavailable.",
    ["reason"],
    by=_API,
)
TASK_WAITERS = gauge("bobrai_task_waiters", "Requests that wait for a task to end (?wait=).", by=_API)

# --- worker -----------------------------------------------------------------------------------------------------------
WORKER_SLOTS = gauge("bobrai_worker_slots", "Tasks that this worker can run at once.", by=_WORKER)
WORKER_BUSY = gauge("bobrai_worker_slots_busy", "Slots of this worker in which a handler runs.", by=_WORKER)
WORKER_READY = gauge(
    "bobrai_worker_tasks_ready", "Tasks that this worker has claimed and that wait for a slot.", by=_WORKER
)
WORKER_UNSETTLED = gauge(
    "bobrai_worker_outcomes_unwritten", "Attempts of this worker whose outcome is not written yet.", by=_WORKER
)
CLAIMS_LOST = counter("bobrai_claims_lost_total", "Outcomes dropped because the claim was no longer held.", by=_WORKER)
LEASES_LOST = counter(
    "bobrai_leases_lost_total", "Times that this worker found its row gone and started over.", by=_WORKER
)
HINTS_STALE = counter(
    "bobrai_hints_stale_total",
    "Hints in messages that named an attempt which was not waiting any more.",
    ["queue"],
    by=_WORKER,
)
HINTS_RELEASED = counter(
    "bobrai_hints_released_total", "Hints given back unclaimed, for whoever is free.", ["queue"], by=_WORKER
)
HANDLER_BLOCKED = counter("bobrai_handler_blocked_total", "Times that a handler blocked the event loop.", by=_WORKER)
HANDLER_THREADS_ABANDONED = counter(
    "bobrai_handler_threads_abandoned_total",
    "Threads that went on after their attempt timed out.",
    ["type"],
    by=_WORKER,
)
HANDLER_BATCH_SIZE = histogram(
    "bobrai_handler_batch_size",
    "Tasks per call of a handler that is declared with a batch.",
    ["type"],
    by=_WORKER,
    buckets=_SIZES,
)
TASKS_ISOLATED = gauge(
    "bobrai_worker_tasks_isolated", "Tasks once lost with a worker that now run in processes of their own.", by=_WORKER
)
ISOLATION_FAILURES = counter(
    "bobrai_isolation_failures_total",
    "Processes for attempts that did not come up. A task whose type runs in processes waits for one, another runs in"
    " the worker itself.",
    by=_WORKER,
)
WORKER_PROCESSES = gauge(
    "bobrai_worker_processes", "Processes of this worker in which attempts run, or may run next.", by=_WORKER
)
EXECUTOR_CALLS_LONG = gauge(
    "bobrai_worker_executor_calls_long",
    "Calls of the event loop's default executor (`asyncio.to_thread`) that have been running for over 5 s.",
    by=_WORKER,
)
HANDLER_CANCELS_IGNORED = counter(
    "bobrai_handler_cancels_ignored_total",
    "Async handlers that went on although they were cancelled.",
    ["type"],
    by=_WORKER,
)

# --- dispatcher: what it does -----------------------------------------------------------------------------------------
HINTS_RELAYED = counter("bobrai_hints_relayed_total", "Hints published and confirmed.", ["queue"], by=_DISPATCHER)
HINTS_ADMITTED = counter(
    "bobrai_hints_admitted_total", "Hints that limits let through, to be published.", ["queue"], by=_DISPATCHER
)
HELD_SECONDS = histogram(
    "bobrai_hint_held_seconds",
    "From due to let through by limits and turns, per hint of a limited queue or type.",
    ["queue"],
    by=_DISPATCHER,
    buckets=_TASK_SECONDS,
)
HINTS_REFUSED = counter(
    "bobrai_hints_refused_total",
    "Hints that the broker refused; they stay in the outbox for the next round.",
    ["queue"],
    by=_DISPATCHER,
)
MESSAGES_PUBLISHED = counter(
    "bobrai_messages_published_total",
    "Messages by the broker's answer: confirmed, refused (the queue is at its maximum length), unknown (no answer).",
    ["queue", "outcome"],
    by=_DISPATCHER,
)
MESSAGE_HINTS = histogram(
    "bobrai_message_hints", "Hints per confirmed message.", ["queue"], by=_DISPATCHER, buckets=_SIZES
)
RELAY_SECONDS = histogram(
    "bobrai_relay_lag_seconds",
    "From due to confirmed by the broker, per message, its first hint; with a backlog this is the time in the outbox.",
    ["queue"],
    by=_DISPATCHER,
    buckets=_TASK_SECONDS,
)
PUBLISH_SECONDS = histogram(
    "bobrai_publish_duration_seconds",
    "From the first message of a batch sent to the last confirm.",
    ["queue"],
    by=_DISPATCHER,
    buckets=_CALL_SECONDS,
)
WORKERS_EXPIRED = counter("bobrai_workers_expired_total", "Workers whose lease expired and was reaped.", by=_DISPATCHER)
TASKS_TAKEN_BACK = counter(
    "bobrai_tasks_taken_back_total",
    "Tasks taken back from lost workers, by their status now: pending, failed, cancelled.",
    ["queue", "status"],
    by=_DISPATCHER,
)
TASKS_SWEPT = counter(
    "bobrai_tasks_swept_total",
    "Due tasks that nothing held; should stay at zero unless the broker lost messages.",
    ["queue"],
    by=_DISPATCHER,
)
TASKS_PRUNED = counter("bobrai_tasks_pruned_total", "Finished tasks removed after their retention.", by=_DISPATCHER)

# --- dispatcher: what it measures, for the whole installation ---------------------------------------------------------
QUEUE_TASKS = shared_gauge(
    "bobrai_queue_tasks",
    "Tasks of a queue by state: due, held (due, and kept back by a limit), delayed, between_attempts, processing.",
    ["queue", "state"],
)
QUEUE_OLDEST_DUE_SECONDS = shared_gauge(
    "bobrai_queue_oldest_due_seconds",
    "Age of the oldest task that is due, not claimed and not kept back by a limit; 0 when there is none.",
    ["queue"],
)
QUEUE_OUTBOX_SECONDS = shared_gauge(
    "bobrai_queue_outbox_lag_seconds",
    "Age of the oldest due hint that is not published; grows also when the broker holds enough for the workers.",
    ["queue"],
)
QUEUE_DEPTH = shared_gauge("bobrai_queue_depth_messages", "Ready messages in RabbitMQ; NaN while unknown.", ["queue"])
QUEUE_WORKERS = shared_gauge(
    "bobrai_queue_workers", "Living workers that consume a queue; a worker of two queues counts in both.", ["queue"]
)
QUEUE_SLOTS = shared_gauge("bobrai_queue_worker_slots", "Slots of the workers that consume a queue.", ["queue"])
QUEUE_PAUSED = shared_gauge("bobrai_queue_paused", "1 while the queue is paused, else 0.", ["queue"])

# --- everywhere -------------------------------------------------------------------------------------------------------
BATCH_SIZE = fast_histogram(
    "bobrai_batch_size",
    "Items per group commit: submit, submit_unique, submit_replacing and read (API), claim, complete and end (worker).",
    ["batch"],
    by=("api", "worker"),
    buckets=_SIZES,
)
BATCH_SECONDS = fast_histogram(
    "bobrai_batch_duration_seconds", "Time of one group commit.", ["batch"], by=("api", "worker"), buckets=_CALL_SECONDS
)
BATCH_FAILURES = counter(
    "bobrai_batch_failures_total",
    "Group commits that failed and were retried or refused.",
    ["batch"],
    by=("api", "worker"),
)
POOL_CONNECTIONS = gauge(
    "bobrai_database_connections",
    "Connections of a pool (api, dispatcher, worker, handlers, heartbeat) by state: used, idle.",
    ["pool", "state"],
    by=EVERY,
)
POOL_SIZE = gauge("bobrai_database_pool_size", "Most connections that a pool may open.", ["pool"], by=EVERY)
POOL_WAITING = gauge("bobrai_database_pool_waiting", "Calls that wait for a connection now.", ["pool"], by=EVERY)
POOL_WAIT_SECONDS = fast_histogram(
    "bobrai_database_pool_wait_seconds",
    "Wait for a connection of the pool, the time to open a new one included.",
    ["pool"],
    by=EVERY,
    buckets=_CALL_SECONDS,
)
DATABASE_ERRORS = counter(
    "bobrai_database_errors_total",
    "Calls that failed: unavailable (away or too slow), rejected (PostgreSQL refused the values).",
    ["pool", "kind"],
    by=EVERY,
)
LOOP_LAG_SECONDS = fast_histogram(
    "bobrai_event_loop_lag_seconds",
    "How late the event loop was, asked four times a second.",
    by=EVERY,
    buckets=_CALL_SECONDS,
)
LOOP_ERRORS = counter("bobrai_loop_errors_total", "Rounds of a periodic duty that failed.", ["loop"], by=EVERY)
LOOP_SUCCESS = gauge(
    "bobrai_loop_last_success_timestamp_seconds",
    "When a periodic duty last had a round without error, in seconds since 1970; waiters has none while nobody waits.",
    ["loop"],
    by=EVERY,
)
CONNECTED = gauge(
    "bobrai_connected",
    "1 while the connection is up, 0 while it is down: database, rabbitmq, and the LISTEN of the dispatcher (notify)"
    " and of the API (notify_access).",
    ["dependency"],
    by=EVERY,
)
EXTERNAL_METRICS_REQUESTS = counter(
    "bobrai_external_metrics_requests_total", "Requests of the autoscaler's API.", ["route", "status"], by=_EXTERNAL
)
POD_DELETION_COSTS = counter(
    "bobrai_pod_deletion_costs_total", "Marks of worker pods: written, or the pod is gone.", ["outcome"], by=_EXTERNAL
)
CERTIFICATE_EXPIRY = gauge(
    "bobrai_certificate_expiry_timestamp_seconds",
    "When the certificate that is served ends, in seconds since 1970; 0 without TLS.",
    by=("api", "external-metrics"),
)
DEAD_LETTERED = counter(
    "bobrai_messages_dead_lettered_total", "Messages that could not be decoded.", ["queue"], by=_WORKER
)
CONSUMER_RESTARTS = counter(
    "bobrai_consumer_restarts_total",
    "Times that a consumer had to be issued again: cancelled, lost, silent.",
    ["queue", "reason"],
    by=_WORKER,
)
SPANS_DROPPED = counter(
    "bobrai_spans_dropped_total",
    "Spans not exported: export_failed (receiver away, slow or refusing), queue_full (more waited than may).",
    ["reason"],
    by=EVERY,
)
LOG_LINES_LOST = counter(
    "bobrai_log_lines_lost_total",
    "Log lines that could not be written, because standard output is closed, full or not read.",
    by=EVERY,
)
BUILD_INFO = gauge("bobrai_build_info", "Always 1; the labels say what runs.", ["version", "process"], by=EVERY)


def forget_queue(queue: str) -> None:
    """Show no series of a queue that is gone; whoever has kept one of them counts unseen from now on."""
    for declared in CATALOGUE.values():
        if "queue" in declared.labels:
            declared.collector.remove_by_labels({"queue": queue})  # type: ignore[attr-defined]
