"""Every metric that bobrAI exports, declared once, in base units, with bounded label sets.

In: counts and durations from the other rooms. Out: the text of ``/metrics``. Labels are queue, type, outcome and other
closed sets: never a task id, never a client's text.
"""

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

# 1 ms to 1 h: a task may wait or run for any of these.
_TASK_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600,
)  # fmt: skip
_BATCH_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_FLUSH_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# API
TASKS_SUBMITTED = Counter("bobrai_tasks_submitted", "Tasks accepted and committed.", ["queue", "type"])
SUBMISSIONS_REFUSED = Counter("bobrai_submissions_refused", "Requests to submit that were refused.", ["reason"])
HTTP_REQUESTS = Counter("bobrai_http_requests", "HTTP requests answered.", ["method", "route", "status"])
HTTP_REQUEST_SECONDS = Histogram(
    "bobrai_http_request_seconds", "Time to answer an HTTP request.", ["method", "route"], buckets=_FLUSH_SECONDS
)
TASK_WAITERS = Gauge("bobrai_task_waiters", "Requests that wait for a task to end.")

# Worker
ATTEMPTS_STARTED = Counter("bobrai_attempts_started", "Attempts whose handler was started.", ["queue", "type"])
ATTEMPTS_ENDED = Counter("bobrai_attempts_ended", "Attempts by outcome.", ["queue", "type", "outcome"])
TASK_WAIT_SECONDS = Histogram(
    "bobrai_task_wait_seconds", "From due to claimed.", ["queue", "type"], buckets=_TASK_SECONDS
)
ATTEMPT_SECONDS = Histogram(
    "bobrai_attempt_seconds", "From handler start to its end.", ["queue", "type"], buckets=_TASK_SECONDS
)
TASK_SECONDS = Histogram("bobrai_task_seconds", "From accepted to final.", ["queue", "type"], buckets=_TASK_SECONDS)
CLAIMS_LOST = Counter("bobrai_claims_lost", "Outcomes dropped because the claim was no longer held.")
HINTS_STALE = Counter("bobrai_hints_stale", "Hints that named an attempt which was not waiting any more.", ["queue"])
HINTS_RELEASED = Counter("bobrai_hints_released", "Hints given back unclaimed.", ["queue"])
WORKER_SLOTS = Gauge("bobrai_worker_slots", "Tasks that this worker can run at once.")
WORKER_RUNNING = Gauge("bobrai_worker_running", "Tasks that this worker is running.")
HANDLER_BLOCKED = Counter("bobrai_handler_blocked", "Times that a handler blocked the event loop.")
HANDLER_THREADS_ABANDONED = Counter(
    "bobrai_handler_threads_abandoned", "Threads that went on after their attempt timed out.", ["type"]
)
HANDLER_CANCELS_IGNORED = Counter(
    "bobrai_handler_cancels_ignored", "Async handlers that went on although they were cancelled.", ["type"]
)
LEASES_LOST = Counter("bobrai_leases_lost", "Times that this worker found its row gone and started over.")

# Dispatcher
HINTS_RELAYED = Counter("bobrai_hints_relayed", "Hints published and confirmed.", ["queue"])
HINTS_REFUSED = Counter("bobrai_hints_refused", "Hints that the broker refused; they stay in the outbox.", ["queue"])
RELAY_SECONDS = Histogram(
    "bobrai_relay_seconds", "From due to confirmed by the broker.", ["queue"], buckets=_TASK_SECONDS
)
RELAY_BUNDLE = Histogram("bobrai_relay_bundle", "Hints per message.", ["queue"], buckets=_BATCH_SIZES)
WORKERS_EXPIRED = Counter("bobrai_workers_expired", "Workers whose lease expired.")
TASKS_TAKEN_BACK = Counter("bobrai_tasks_taken_back", "Tasks taken back from lost workers.", ["queue", "status"])
TASKS_SWEPT = Counter("bobrai_tasks_swept", "Due tasks that nothing held; should stay at zero.", ["queue"])
TASKS_PRUNED = Counter("bobrai_tasks_pruned", "Finished tasks removed after their retention.")
QUEUE_TASKS = Gauge("bobrai_queue_tasks", "Tasks of a queue by state.", ["queue", "state"])
QUEUE_OLDEST_DUE_SECONDS = Gauge("bobrai_queue_oldest_due_seconds", "Age of the oldest due task.", ["queue"])
QUEUE_DEPTH = Gauge("bobrai_queue_depth_messages", "Ready messages in the broker.", ["queue"])
QUEUE_WORKERS = Gauge("bobrai_queue_workers", "Living workers that consume a queue.", ["queue"])
LOOP_ERRORS = Counter("bobrai_loop_errors", "Rounds of a periodic duty that failed.", ["loop"])

# Everywhere
BATCH_SIZE = Histogram("bobrai_batch_size", "Items per group commit.", ["batch"], buckets=_BATCH_SIZES)
BATCH_SECONDS = Histogram("bobrai_batch_seconds", "Time of one group commit.", ["batch"], buckets=_FLUSH_SECONDS)
BATCH_FAILURES = Counter("bobrai_batch_failures", "Group commits that failed and were retried or refused.", ["batch"])
CONNECTED = Gauge("bobrai_connected", "1 while the connection is up, 0 while it is down.", ["dependency"])
DEAD_LETTERED = Counter("bobrai_messages_dead_lettered", "Messages that could not be decoded.", ["queue"])
CONSUMER_RESTARTS = Counter(
    "bobrai_consumer_restarts", "Times that a consumer had to be issued again.", ["queue", "reason"]
)
BUILD_INFO = Gauge("bobrai_build_info", "Always 1; the labels say what runs.", ["version", "process"])


def exposition() -> tuple[bytes, str]:
    """Return the body and the content type of ``/metrics``."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
