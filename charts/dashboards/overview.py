"""*Overview*: is it well? The first row is for everybody; then what flows, what is nearly full, what must stay 0."""

from charts.dashboards.model import NAMESPACES, QUEUES, TYPES, Dashboard, Panel, Query, Row
from charts.dashboards.promql import known, once, or_zero, quantile, rate, select, share, total

ACCEPTED = rate("bobrai_tasks_submitted_total")
FINISHED = rate("bobrai_tasks_finished_total")
FAILED = rate("bobrai_tasks_finished_total", outcome="failed")

WELL = Row(
    "Is it well?",
    (
        Panel(
            "Accepted per second",
            "Tasks that clients handed in and that are committed. Good: what you expect at this hour; 0 means that no"
            " client gets through, or that none comes.",
            "cps",
            (Query(or_zero(ACCEPTED)),),
            kind="stat", width=4, height=5,
        ),
        Panel(
            "Finished per second",
            "Tasks that became done, failed or cancelled. Good: as many as are accepted, or more while a backlog is"
            " worked off.",
            "cps",
            (Query(or_zero(FINISHED)),),
            kind="stat", width=4, height=5,
        ),
        Panel(
            "Failed share",
            "Of the tasks that finished, how many failed for good. Good: what your handlers usually refuse, mostly"
            " under 1 %.",
            "percentunit",
            (Query(share(FAILED, FINISHED)),),
            kind="stat", width=4, height=5, warn=0.05, bad=0.5, most=1, runbook="BobraiTaskFailureRatio",
        ),
        Panel(
            "Oldest due task",
            "How long the task has waited that is due and has waited longest. Good: under a second or two; over a"
            " minute is what the alert counts as late.",
            "s",
            (Query(once("bobrai_queue_oldest_due_seconds", function="max")),),
            kind="stat", width=4, height=5, warn=30, bad=60, runbook="BobraiBacklogAge",
        ),
        Panel(
            "Submit to done, p95",
            "Nineteen of twenty tasks that were done took at most this long from accepted to done, a wished delay"
            " included. Good: what you promised.",
            "s",
            (Query(known(quantile(0.95, "bobrai_task_duration_seconds"))),),
            kind="stat", width=4, height=5, empty="idle", runbook="BobraiBacklogAge",
        ),
        Panel(
            "Workers",
            "Worker processes that Prometheus reaches. Good: never 0 while tasks wait; it follows the backlog where"
            " autoscaling is on.",
            "short",
            (Query(or_zero(f"count({select('bobrai_worker_slots')})")),),
            kind="stat", width=4, height=5, bad=1, falling=True, decimals=0, runbook="BobraiNoWorkerForBacklog",
        ),
    ),
)  # fmt: skip

FLOW = Row(
    "Flow",
    (
        Panel(
            "Accepted and finished",
            "Good: finished lies on accepted and replayed together. Below them for long: the backlog grows.",
            "cps",
            (Query(or_zero(ACCEPTED), "accepted"), Query(or_zero(FINISHED), "finished"),
             Query(or_zero(FAILED), "failed"), Query(or_zero(rate("bobrai_tasks_retried_total")), "retried"),
             Query(or_zero(rate("bobrai_tasks_replayed_total")), "replayed")),
            runbook="BobraiTaskFailureRatio",
        ),
        Panel(
            "Tasks that are not finished",
            "Due now, delayed to a moment, between two attempts, or being run. Good: due is near 0 and does not climb.",
            "short",
            (Query(once("bobrai_queue_tasks", "state"), "{{state}}"),),
            stacked=True, runbook="BobraiBacklogAge",
        ),
        Panel(
            "Submit to done",
            "From accepted to done. A dot is one task; it leads to its trace. Good: flat, and p99 near p50 where"
            " tasks are of one kind.",
            "s",
            (Query(quantile(0.5, "bobrai_task_duration_seconds"), "p50", exemplar=True),
             Query(quantile(0.95, "bobrai_task_duration_seconds"), "p95"),
             Query(quantile(0.99, "bobrai_task_duration_seconds"), "p99")),
            runbook="BobraiBacklogAge",
        ),
    ),
)  # fmt: skip

SATURATION = Row(
    "What is nearly full",
    (
        Panel(
            "Worker slots in use",
            "Good: under 80 % on average. At 100 % with due tasks: more workers, or more slots per worker.",
            "percentunit",
            (Query(share(total("bobrai_worker_slots_busy", "pod"), total("bobrai_worker_slots", "pod")), "{{pod}}"),),
            most=1, warn=0.9, runbook="BobraiNoWorkerForBacklog",
        ),
        Panel(
            "Wait for a database connection, p99",
            "Inside each process, at its own pool. Good: under 10 ms. More: the process does more at once than its"
            " BOBRAI_DATABASE_POOL_SIZE allows, or the database is slow.",
            "s",
            (Query(quantile(0.99, "bobrai_database_pool_wait_seconds", "pool"), "{{pool}}"),),
            warn=0.1, bad=1,
        ),
        Panel(
            "Clients that wait in PgBouncer",
            "Good: 0. More for minutes: the pool of server connections is too small, or PostgreSQL is slow or away.",
            "short",
            (Query(total("pgbouncer_pools_client_waiting_connections", "pod"), "{{pod}}"),),
            warn=1, bad=20, decimals=0, runbook="BobraiPgbouncerClientsWaiting",
        ),
        Panel(
            "Event loop lag, p99",
            "How late each process is for its own appointments. Good: under 50 ms. More: it computes too much in one"
            " piece, or has too little CPU.",
            "s",
            (Query(quantile(0.99, "bobrai_event_loop_lag_seconds", "pod"), "{{pod}}"),),
            warn=0.1, bad=1,
        ),
        Panel(
            "HTTP errors",
            "Requests that got a 5xx, of all but the probes. Good: under 0.1 %, which is what the alert's budget"
            " allows.",
            "percentunit",
            (Query(share(rate("bobrai_http_requests_total", status="~5..", route="!~/livez|/readyz|/health|/metrics"),
                         rate("bobrai_http_requests_total", route="!~/livez|/readyz|/health|/metrics"))),),
            warn=0.001, bad=0.0144, runbook="BobraiApiErrorRatio",
        ),
        Panel(
            "Outbox lag",
            "Age of the oldest due hint that is not in RabbitMQ. Good: under a second without a backlog. It also"
            " grows while RabbitMQ holds enough for the workers: then the backlog is the matter, not the outbox.",
            "s",
            (Query(once("bobrai_queue_outbox_lag_seconds", "queue", function="max"), "{{queue}}"),),
            warn=60, runbook="BobraiOutboxLag",
        ),
    ),
)  # fmt: skip

NEVER = Row(
    "What should stay at 0",
    (
        Panel(
            "Connections that are down",
            "Processes without their database, RabbitMQ or LISTEN connection. Good: 0. Accepted tasks wait in the"
            " database meanwhile; nothing is lost.",
            "short",
            (Query(f'count by (dependency) ({select("bobrai_connected")}) - {total("bobrai_connected", "dependency")}',
                   "{{dependency}}"),),
            kind="stat", width=6, height=5, bad=1, decimals=0, runbook="BobraiDatabaseUnreachable",
        ),
        Panel(
            "Workers lost in the hour",
            "Workers that went silent; their tasks were taken back and run again. Good: 0, or as many as nodes died.",
            "short",
            (Query(or_zero(f'sum(increase({select("bobrai_workers_expired_total")}[1h]))')),),
            kind="stat", width=6, height=5, warn=1, decimals=0, runbook="BobraiWorkerLost",
        ),
        Panel(
            "Tasks swept in the hour",
            "Due tasks that neither the outbox, nor RabbitMQ, nor a worker held, and that were found again. Good: 0,"
            " always; more means that RabbitMQ lost messages.",
            "short",
            (Query(or_zero(f'sum(increase({select("bobrai_tasks_swept_total")}[1h]))')),),
            kind="stat", width=6, height=5, bad=1, decimals=0, runbook="BobraiTasksSwept",
        ),
        Panel(
            "RabbitMQ alarms",
            "Nodes that block publishers because memory or disk runs out. Good: 0.",
            "short",
            (Query(total("rabbitmq_alarms_memory_used_watermark"), "memory"),
             Query(total("rabbitmq_alarms_free_disk_space_watermark"), "disk")),
            kind="stat", width=6, height=5, bad=1, decimals=0, runbook="BobraiRabbitmqAlarm",
        ),
    ),
)  # fmt: skip

DASHBOARD = Dashboard(
    "overview",
    "Overview",
    "Is bobrAI well? The first row answers; the others say where to look next.",
    (WELL, FLOW, SATURATION, NEVER),
    (NAMESPACES, QUEUES, TYPES),
)
