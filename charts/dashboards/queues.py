"""*Queues*: which queue is behind, by how much, why, and when it will have caught up."""

from charts.dashboards.model import NAMESPACES, QUEUES, TYPES, Dashboard, Panel, Query, Row
from charts.dashboards.promql import mean, once, or_zero, quantile, rate, share, total

SUBMITTED = rate("bobrai_tasks_submitted_total", "queue")
FINISHED = rate("bobrai_tasks_finished_total", "queue")
DUE = once("bobrai_queue_tasks", "queue", state="due")

BACKLOG = Row(
    "Backlog",
    (
        Panel(
            "Due",
            "Tasks that could run now, if a worker were free. Good: near 0, or falling.",
            "short",
            (Query(DUE, "{{queue}}"),),
            runbook="BobraiBacklogAge",
        ),
        Panel(
            "Oldest due task",
            "The wait that a new task faces, roughly. Good: a second or two; over 60 s counts as late.",
            "s",
            (Query(once("bobrai_queue_oldest_due_seconds", "queue", function="max"), "{{queue}}"),),
            warn=30, bad=60, runbook="BobraiBacklogAge",
        ),
        Panel(
            "Time to work off what is due",
            "Due tasks over the tasks that finish per second, as it goes now. Good: less than clients are ready to"
            " wait. No line: nothing finishes.",
            "s",
            (Query(f"{DUE} / on (queue) ({FINISHED} > 0)", "{{queue}}"),),
            runbook="BobraiBacklogAge",
        ),
        Panel(
            "Waiting for a moment",
            "Delayed by the client, or between two attempts. They need no worker yet. Good: what clients schedule;"
            " many between attempts means that many fail.",
            "short",
            (Query(once("bobrai_queue_tasks", "queue", "state", state="~delayed|between_attempts"),
                   "{{queue}} {{state}}"),),
            runbook="BobraiTaskFailureRatio",
        ),
        Panel(
            "Being run",
            "Tasks that a worker has claimed. Good: at most the slots of the queue's workers.",
            "short",
            (Query(once("bobrai_queue_tasks", "queue", state="processing"), "{{queue}}"),
             Query(once("bobrai_queue_worker_slots", "queue"), "{{queue}} slots")),
            runbook="BobraiNoWorkerForBacklog",
        ),
        Panel(
            "Living workers",
            "Workers that consume the queue; one that consumes two counts in both. Good: never 0 while tasks are due.",
            "short",
            (Query(once("bobrai_queue_workers", "queue"), "{{queue}}"),),
            bad=1, falling=True, decimals=0, runbook="BobraiNoWorkerForBacklog",
        ),
    ),
)  # fmt: skip

FLOW = Row(
    "Flow",
    (
        Panel(
            "Accepted per second",
            "Good: what you expect at this hour. Duplicates: submissions of unique tasks that were there already.",
            "cps",
            (Query(SUBMITTED, "{{queue}}"),
             Query(or_zero(rate("bobrai_tasks_duplicate_total"), queue="any"), "duplicates")),
        ),
        Panel(
            "Finished per second",
            "Good: as many as are accepted, over the minutes.",
            "cps",
            (Query(FINISHED, "{{queue}}"),),
        ),
        Panel(
            "Failed share",
            "Of the tasks that finished, how many failed for good. Good: mostly under 1 %.",
            "percentunit",
            (Query(share(rate("bobrai_tasks_finished_total", "queue", outcome="failed"), FINISHED), "{{queue}}"),),
            warn=0.05, bad=0.5, most=1, runbook="BobraiTaskFailureRatio",
        ),
        Panel(
            "Wait from due to claimed, p95",
            "Per attempt. A dot is one attempt; it leads to its trace. Good: milliseconds while workers are free.",
            "s",
            (Query(quantile(0.95, "bobrai_task_queue_wait_seconds", "queue"), "{{queue}}", exemplar=True),),
            warn=30, bad=60, runbook="BobraiBacklogAge",
        ),
        Panel(
            "Submit to done, p95",
            "From accepted to done, delays and attempts included. A dot leads to its trace. Good: what you promised.",
            "s",
            (Query(quantile(0.95, "bobrai_task_duration_seconds", "queue"), "{{queue}}", exemplar=True),),
            runbook="BobraiBacklogAge",
        ),
        Panel(
            "Paused",
            "A paused queue accepts tasks and starts none; its backlog is wanted. Good: what you decided.",
            "short",
            (Query(once("bobrai_queue_paused", "queue", function="max"), "{{queue}}"),),
            most=1, decimals=0, labels={"0": "running", "1": "paused"}, runbook="BobraiBacklogAge",
        ),
    ),
)  # fmt: skip

LIMITS = Row(
    "Limits",
    (
        Panel(
            "Held back",
            "Due tasks that a limit lets wait; no worker is scaled up for them. Good: what the limits are for, and"
            " falling once the rush is over.",
            "short",
            (Query(once("bobrai_queue_tasks", "queue", state="held"), "{{queue}}"),),
            runbook="BobraiLimitStuck",
        ),
        Panel(
            "Let through per second",
            "Attempts of limited queues and types that were allowed to start. Good: what the limits allow while tasks"
            " are held back. 0 then: something keeps every place.",
            "cps",
            (Query(rate("bobrai_hints_admitted_total", "queue"), "{{queue}}"),),
            runbook="BobraiLimitStuck",
        ),
        Panel(
            "Wait for a limit or a turn, p95",
            "From due to let through, per attempt of a limited queue or type. Good: what you meant by the limit.",
            "s",
            (Query(quantile(0.95, "bobrai_hint_held_seconds", "queue"), "{{queue}}"),),
            runbook="BobraiLimitStuck",
        ),
    ),
)

RELAY = Row(
    "From the outbox to RabbitMQ",
    (
        Panel(
            "Outbox lag",
            "Age of the oldest due hint that is not in RabbitMQ. Good: under a second, unless RabbitMQ holds enough"
            " for the workers already (next panel).",
            "s",
            (Query(once("bobrai_queue_outbox_lag_seconds", "queue", function="max"), "{{queue}}"),),
            warn=60, runbook="BobraiOutboxLag",
        ),
        Panel(
            "Ready messages in RabbitMQ",
            "Only a window of the backlog is there, the rest waits in the outbox; a message may carry several hints."
            " Good: small and steady. 0 while the outbox lags: the dispatchers do not relay.",
            "short",
            (Query(once("bobrai_queue_depth_messages", "queue"), "{{queue}}"),),
            runbook="BobraiOutboxLag",
        ),
        Panel(
            "From due to confirmed by RabbitMQ, p95",
            "Per message. Good: tens of milliseconds without a backlog; with one it is the time in the outbox.",
            "s",
            (Query(quantile(0.95, "bobrai_relay_lag_seconds", "queue"), "{{queue}}"),),
            runbook="BobraiOutboxLag",
        ),
        Panel(
            "Hints relayed per second",
            "Good: as many as attempts start, a little more when workers give hints back.",
            "cps",
            (Query(rate("bobrai_hints_relayed_total", "queue"), "{{queue}}"),),
            runbook="BobraiOutboxLag",
        ),
        Panel(
            "Hints per message",
            "Short tasks with a backlog share a message. Good: 1 for slow tasks, more for quick ones under load.",
            "short",
            (Query(mean("bobrai_message_hints", "queue"), "{{queue}}"),),
        ),
        Panel(
            "Messages by RabbitMQ's answer",
            "Good: confirmed alone. Refused: the queue is at its maximum length, the hint stays in the outbox."
            " Unknown: no answer, it is sent again; twice does no harm.",
            "cps",
            (Query(rate("bobrai_messages_published_total", "queue", "outcome"), "{{queue}} {{outcome}}"),
             Query(or_zero(rate("bobrai_hints_refused_total"), queue="any"), "hints refused")),
            runbook="BobraiBrokerUnreachable",
        ),
        Panel(
            "Publish until the last confirm, p95",
            "RabbitMQ's own speed for a batch. Good: tens of milliseconds.",
            "s",
            (Query(quantile(0.95, "bobrai_publish_duration_seconds", "queue"), "{{queue}}"),),
            warn=1, runbook="BobraiBrokerUnreachable",
        ),
        Panel(
            "Messages in RabbitMQ's own words",
            "Ready and delivered but not acked, from its detailed metrics. Good: no more unacked than slots, plus"
            " what workers hold in hand.",
            "short",
            (Query(total("rabbitmq_detailed_queue_messages_ready", "queue", function="max"), "{{queue}} ready"),
             Query(total("rabbitmq_detailed_queue_messages_unacked", "queue", function="max"), "{{queue}} unacked")),
            runbook="BobraiOutboxLag",
        ),
        Panel(
            "Found again by the sweeper",
            "Due tasks that nothing held. Good: 0, always.",
            "cps",
            (Query(or_zero(rate("bobrai_tasks_swept_total", "queue"), queue="any"), "{{queue}}"),),
            bad=0.001, runbook="BobraiTasksSwept",
        ),
    ),
)  # fmt: skip

DASHBOARD = Dashboard(
    "queues",
    "Queues",
    "Which queue is behind, by how much, why, and when will it have caught up?",
    (BACKLOG, FLOW, LIMITS, RELAY),
    (NAMESPACES, QUEUES, TYPES),
    pauses=True,
)
