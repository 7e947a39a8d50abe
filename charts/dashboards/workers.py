"""*Workers and attempts*: who works, how long attempts take, how they end, and what went wrong in between."""

from charts.dashboards.model import NAMESPACES, QUEUES, TYPES, Dashboard, Panel, Query, Row
from charts.dashboards.promql import mean, of, or_zero, quantile, rate, select, share, total

BATCHES = "~claim|complete|end"

ATTEMPTS = Row(
    "Attempts",
    (
        Panel(
            "Started per second",
            "Attempts whose handler began, by type. Good: it follows what is accepted.",
            "cps",
            (Query(rate("bobrai_attempts_started_total", "type"), "{{type}}"),),
            stacked=True,
        ),
        Panel(
            "Outcomes",
            "How attempts ended: done, failed, retry, cancelled, or interrupted (given back by a worker that stops;"
            " not counted as an attempt). Good: done, and little else.",
            "cps",
            (Query(rate("bobrai_attempts_finished_total", "outcome"), "{{outcome}}"),),
            stacked=True, runbook="BobraiTaskFailureRatio",
        ),
        Panel(
            "Failed share by type",
            "Of the tasks that finished, how many failed for good. Good: mostly under 1 %; one type alone: look at"
            " its handler.",
            "percentunit",
            (Query(share(rate("bobrai_tasks_finished_total", "type", outcome="failed"),
                         rate("bobrai_tasks_finished_total", "type")), "{{type}}"),),
            most=1, warn=0.05, bad=0.5, runbook="BobraiTaskFailureRatio",
        ),
        Panel(
            "Retries by reason",
            "Failed attempts after which another one follows. Good: few. timeout: the handler is slower than its"
            " limit; retry_later: it asked for it over 1,000 times; worker_lost, crashed, memory_limit: it ended its"
            " own process, see below.",
            "cps",
            (Query(or_zero(rate("bobrai_tasks_retried_total", "reason"), reason="none"), "{{reason}}"),),
            stacked=True, runbook="BobraiTaskFailureRatio",
        ),
        Panel(
            "Run time by type, p95",
            "From the handler's start to its end. A dot is one attempt; it leads to its trace. Good: steady, and well"
            " under the type's timeout.",
            "s",
            (Query(quantile(0.95, "bobrai_attempt_duration_seconds", "type"), "{{type}}", exemplar=True),),
        ),
        Panel(
            "Run time by type, p50",
            "Half of the attempts are quicker. Good: steady.",
            "s",
            (Query(quantile(0.5, "bobrai_attempt_duration_seconds", "type"), "{{type}}"),),
        ),
        Panel(
            "Tasks per call of a batch handler",
            "Good: near the declared size under load. Far below it with a backlog: fewer slots than that, or too many"
            " keys.",
            "short",
            (Query(mean("bobrai_handler_batch_size", "type"), "{{type}}"),),
        ),
        Panel(
            "Run times",
            "Attempts per second by run time; the darker, the more. Good: bands that stay where they are.",
            "s",
            (Query(rate("bobrai_attempt_duration_seconds_bucket", "le"), exemplar=True),),
            kind="heatmap", width=12,
        ),
        Panel(
            "Waits from due to claimed",
            "Attempts per second by wait. Good: a band in the milliseconds; a second band far above means that"
            " workers are short at times.",
            "s",
            (Query(rate("bobrai_task_queue_wait_seconds_bucket", "le"), exemplar=True),),
            kind="heatmap", width=12, runbook="BobraiBacklogAge",
        ),
    ),
)  # fmt: skip

WORKERS = Row(
    "Workers",
    (
        Panel(
            "Slots",
            "What all workers can run at once, and what they run. Good: busy stays under all slots, with room for a"
            " peak.",
            "short",
            (Query(total("bobrai_worker_slots"), "slots"), Query(total("bobrai_worker_slots_busy"), "busy"),
             Query(total("bobrai_worker_tasks_ready"), "claimed, waiting for a slot"),
             Query(total("bobrai_worker_outcomes_unwritten"), "outcome not written yet")),
            runbook="BobraiNoWorkerForBacklog",
        ),
        Panel(
            "Slots in use by worker",
            "Good: all alike. One at 100 % while others idle holds tasks that do not end.",
            "percentunit",
            (Query(share(total("bobrai_worker_slots_busy", "pod"), total("bobrai_worker_slots", "pod")), "{{pod}}"),),
            most=1, warn=0.9,
        ),
        Panel(
            "Workers lost, tasks taken back",
            "Workers that went silent for longer than their lease, and the tasks they held. Good: 0. With it: out of"
            " memory, a dead node, or a handler that ends its process.",
            "cps",
            (Query(or_zero(rate("bobrai_workers_expired_total")), "workers lost"),
             Query(or_zero(rate("bobrai_tasks_taken_back_total", "status"), status="none"), "tasks now {{status}}"),
             Query(or_zero(rate("bobrai_leases_lost_total")), "leases found gone")),
            warn=0.001, runbook="BobraiWorkerLost",
        ),
        Panel(
            "Tasks lost with their process, by type",
            "worker_lost: a worker went with all it ran; any of them may be to blame, and it was no attempt."
            " process_died: the task ran in a process of its own, so its handler did it, and it was one. Good: 0.",
            "cps",
            (Query(or_zero(rate("bobrai_task_losses_total", "type", "cause"), type="none", cause="lost"),
                   "{{type}} {{cause}}"),),
            warn=0.001, runbook="BobraiTaskKillsProcess",
        ),
        Panel(
            "Isolated tasks, processes",
            "Tasks that were lost with a worker run each in a process of its own; where none comes up, in the worker"
            " itself. Good: 0 but for the time after a worker was lost. Types that run in processes have theirs.",
            "short",
            (Query(total("bobrai_worker_tasks_isolated", "pod"), "{{pod}}"),
             Query(total("bobrai_worker_processes", "pod"), "{{pod}} processes"),
             Query(or_zero(f'sum(increase({select("bobrai_isolation_failures_total")}[$__rate_interval]))'),
                   "process did not come up")),
            runbook="BobraiTaskKillsProcess",
        ),
        Panel(
            "Outcomes dropped",
            "A worker had lost its claim before it could write the outcome; another attempt decides. Good: 0 but for"
            " the moments after a worker was lost.",
            "cps",
            (Query(or_zero(rate("bobrai_claims_lost_total")), "claims lost"),),
            warn=0.001, runbook="BobraiWorkerLost",
        ),
        Panel(
            "Handlers that misbehave",
            "Blocked: a handler kept the event loop from everything else; make it a plain def. Abandoned or ignoring:"
            " it goes on after its timeout or cancel. Good: 0.",
            "cps",
            (Query(or_zero(rate("bobrai_handler_blocked_total")), "blocked the event loop"),
             Query(or_zero(rate("bobrai_handler_threads_abandoned_total")), "threads abandoned"),
             Query(or_zero(rate("bobrai_handler_cancels_ignored_total")), "cancels ignored")),
            warn=0.001, runbook="BobraiWorkerLost",
        ),
        Panel(
            "Event loop lag by worker, p99",
            "Good: under 50 ms.",
            "s",
            (Query(of("worker", quantile(0.99, "bobrai_event_loop_lag_seconds", "namespace", "pod")), "{{pod}}"),),
            warn=0.1, bad=1,
        ),
        Panel(
            "Memory by worker",
            "Resident memory. Good: it levels off. Steps upwards that never end: a handler leaks; see"
            " BOBRAI_WORKER_MAX_MEMORY_MIB.",
            "bytes",
            (Query(of("worker", total("process_resident_memory_bytes", "namespace", "pod")), "{{pod}}"),),
            runbook="BobraiWorkerLost",
        ),
        Panel(
            "CPU by worker",
            "Cores in use. Good: under 1 for async handlers, which share one core.",
            "short",
            (Query(of("worker", rate("process_cpu_seconds_total", "namespace", "pod")), "{{pod}}"),),
        ),
        Panel(
            "Rounds of duties that failed",
            "Heartbeats and other periodic duties. Good: 0.",
            "cps",
            (Query(or_zero(rate("bobrai_loop_errors_total", "loop"), loop="none"), "{{loop}}"),),
            warn=0.001, runbook="BobraiDatabaseUnreachable",
        ),
        Panel(
            "Log lines lost",
            "Lines that could not be written, because standard output is closed, full or not read. Good: 0; the work"
            " goes on without them.",
            "cps",
            (Query(or_zero(rate("bobrai_log_lines_lost_total", "pod"), pod="none"), "{{pod}}"),),
            warn=0.001,
        ),
        Panel(
            "Calls of to_thread that do not end",
            "Running for over 5 s in the event loop's default executor. Good: 0, or as many as handlers mean to have;"
            " what grows without end leaks a thread each time.",
            "short",
            (Query(total("bobrai_worker_executor_calls_long", "pod"), "{{pod}}"),),
        ),
    ),
)  # fmt: skip

DELIVERY = Row(
    "Deliveries and writes",
    (
        Panel(
            "Hints that led to nothing",
            "Stale: the attempt was already taken, which is harmless. Released: given back for whoever is free. Good:"
            " far fewer than attempts start.",
            "cps",
            (Query(or_zero(rate("bobrai_hints_stale_total", "queue"), queue="any"), "{{queue}} stale"),
             Query(or_zero(rate("bobrai_hints_released_total", "queue"), queue="any"), "{{queue}} released")),
        ),
        Panel(
            "Consumers issued again",
            "Cancelled by RabbitMQ, lost, or silent. Good: 0 but for outages and long tasks.",
            "cps",
            (Query(or_zero(rate("bobrai_consumer_restarts_total", "reason"), reason="none"), "{{reason}}"),),
            runbook="BobraiBrokerUnreachable",
        ),
        Panel(
            "Messages that could not be read",
            "Dead-lettered. Good: 0; something else publishes into bobrAI's queues.",
            "cps",
            (Query(or_zero(rate("bobrai_messages_dead_lettered_total", "queue"), queue="any"), "{{queue}}"),),
            bad=0.001, runbook="BobraiMessagesDeadLettered",
        ),
        Panel(
            "Items per group commit",
            "Claims and completions that share a transaction. Good: 1 when idle, more under load: that is what keeps"
            " the database cheap.",
            "short",
            (Query(mean("bobrai_batch_size", "batch", batch=BATCHES), "{{batch}}"),),
            width=6,
        ),
        Panel(
            "Time of a group commit, p95",
            "Good: under 20 ms.",
            "s",
            (Query(quantile(0.95, "bobrai_batch_duration_seconds", "batch", batch=BATCHES), "{{batch}}"),),
            width=6, warn=0.1, bad=1, runbook="BobraiDatabaseUnreachable",
        ),
        Panel(
            "Group commits that failed",
            "They are tried again. Good: 0.",
            "cps",
            (Query(or_zero(rate("bobrai_batch_failures_total", "batch", batch=BATCHES), batch="none"), "{{batch}}"),),
            width=6, warn=0.001, runbook="BobraiDatabaseUnreachable",
        ),
        Panel(
            "Spans not exported",
            "export_failed: their receiver is away or refuses; queue_full: it is too slow. Tasks do not notice. Good:"
            " 0.",
            "cps",
            (Query(or_zero(rate("bobrai_spans_dropped_total", "reason"), reason="none"), "{{reason}}"),),
            width=6, warn=0.001,
        ),
    ),
)  # fmt: skip

AUTOSCALER = Row(
    "Autoscaler",
    (
        Panel(
            "Asked for backlogs per second",
            "Requests of Kubernetes to the external metrics server. Good: 200 and 404 alone, a few per minute and pool;"
            " 401 or 403: it does not know the front proxy; 503: figures are too old.",
            "reqps",
            (Query(rate("bobrai_external_metrics_requests_total", "status"), "{{status}}"),),
            width=12, runbook="BobraiBacklogAge",
        ),
        Panel(
            "Time left of its certificate",
            "When it has ended, no pool is scaled any more. Good: months.",
            "s",
            (Query(f'min({select("bobrai_certificate_expiry_timestamp_seconds")} > 0) - time()'),),
            kind="stat", width=6, warn=30 * 86400, bad=7 * 86400, falling=True, runbook="BobraiCertificateExpiry",
        ),
        Panel(
            "Marks of busy workers per second",
            "Where scale-in shall take idle pods (externalMetrics' deletion cost). Good: written, and little else.",
            "cps",
            (Query(or_zero(rate("bobrai_pod_deletion_costs_total", "outcome"), outcome="none"), "{{outcome}}"),),
            width=6,
        ),
    ),
)  # fmt: skip

DASHBOARD = Dashboard(
    "workers",
    "Workers and attempts",
    "Who works, how long do attempts take, how do they end, and what went wrong in between?",
    (ATTEMPTS, WORKERS, DELIVERY, AUTOSCALER),
    (NAMESPACES, QUEUES, TYPES),
)
