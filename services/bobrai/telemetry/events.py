"""Every event that bobrAI logs: its name, its usual severity, and what it means to whoever reads the line.

In: nothing. Out: the table of docs/logs.md. A test compares the names with what the code logs, in both directions.
Names are ``subject.what_happened``; a handler's own lines have whatever names their authors like.
"""

from typing import Final, NamedTuple


class Event(NamedTuple):
    """What is known of one event."""

    level: str
    meaning: str


EVENTS: Final[dict[str, Event]] = {
    # --- any process
    "settings.unknown_variable": Event("warning", "A `BOBRAI_` variable that nothing reads; `did_you_mean` is close."),
    "process.stopping": Event("info", "A signal asked the process to drain."),
    "process.draining": Event("info", "The drain has taken two seconds, and goes on; a second signal ends it at once."),
    "process.killed": Event("warning", "A second signal ended the process before it had drained."),
    "process.loop_interrupted": Event(
        "error", "SystemExit or KeyboardInterrupt was raised in the event loop, by no attempt; the process goes on."
    ),
    "process.stray_error": Event(
        "error", "An asyncio task or a thread that nobody waits for failed; `stack` shows where."
    ),
    "log.level_changed": Event("warning", "SIGUSR1 or SIGUSR2 changed the least severity that is printed."),
    "loop.failed": Event("warning", "A round of a periodic duty failed; said once, until it recovers."),
    "loop.recovered": Event("info", "A periodic duty works again after `failures` rounds."),
    "database.away": Event(
        "warning", "PostgreSQL does not do what a `part` of the process asks, `error` says why; said once."
    ),
    "database.back": Event("info", "It does so again, after `failures` tries."),
    "database.awaited": Event("warning", "A command waits for a database that does not answer yet."),
    "database.silent": Event("debug", "A look whether PostgreSQL answers had no answer."),
    "metrics.incomplete": Event(
        "warning", "A metric that a handler or a library registered cannot be shown; only bobrAI's are, until it can."
    ),
    "certificate.changed": Event("info", "The certificate that is served, or whom it takes, was read again."),
    "certificate.refused": Event(
        "warning", "New files cannot be used, `error` says why; the certificate before stays in use. Said once."
    ),
    "tls.handshake_failed": Event("debug", "A client did not get through the handshake of TLS, `error` says why."),
    "tracing.started": Event("info", "Spans are exported."),
    "tracing.unavailable": Event(
        "warning", "`OTEL_*` variables ask for traces that cannot be exported; `reason` says why."
    ),
    "tracing.export_failed": Event("warning", "Spans could not be sent and are dropped; said once, until it works."),
    "tracing.export_recovered": Event("info", "Spans are sent again."),
    # --- migrate
    "schema.awaited": Event("info", "Waiting until somebody has migrated the database."),
    "schema.migrated": Event("info", "The schema was brought to this release's revision."),
    "schema.current": Event("info", "The schema was at this release's revision already."),
    # --- API
    "api.listening": Event("info", "HTTP connections are taken."),
    "api.stopped": Event("info", "The API has drained and ends."),
    "http.request": Event("info", "A request was answered (debug for health, metrics and documentation)."),
    "http.refused": Event("info", "What a client sent was no request, or its head too large or slow."),
    "http.failed": Event("error", "A request met a defect of the server and was answered with 500."),
    "access.open": Event(
        "warning",
        "The API is reached from other machines, and lets requests without a credential do what `scopes` say.",
    ),
    "access.key_unusable": Event("warning", "A key's row says what this release cannot read; the key opens nothing."),
    "audit.recorded": Event("info", "A change that `actor` wished for is made: `action` on `target`."),
    "catalog.empty": Event("debug", "Queues and types could not be read yet."),
    "catalog.schema_unusable": Event(
        "warning", "A type's JSON Schema cannot be used; the worker alone checks payloads."
    ),
    "oidc.keys_read": Event("info", "The keys of an `issuer` were read, and are others than before, or could not be."),
    "oidc.keys_unreadable": Event(
        "warning", "The keys of an `issuer` cannot be read; `error` says from where and why; said once, until they can."
    ),
    "oidc.keys_unusable": Event(
        "warning",
        "An `issuer` publishes no key that can be used for one of `algorithms`, `left_out` says why: every"
        " token of it is refused.",
    ),
    "queues.made": Event("info", "A submission named queues that did not exist yet."),
    # --- dispatcher
    "dispatcher.started": Event("info", "The dispatcher's duties run."),
    "dispatcher.stopped": Event("info", "The dispatcher has drained and ends."),
    "dispatcher.drain_timeout": Event("warning", "Rounds under way were cut off when the drain time was over."),
    "relay.queue_closed": Event("warning", "The broker takes nothing for a queue; it is left alone for a while."),
    "wakeups.listening": Event("info", "The process hears of commits by NOTIFY on a `channel`."),
    "wakeups.lost": Event("warning", "NOTIFY is not heard on a `channel`; the process polls until it is."),
    "worker.lost": Event("warning", "A worker's lease expired: its tasks are taken back."),
    "task.taken_back": Event(
        "warning", "A lost worker's task is pending again; it has been lost `losses` times, which are no attempts."
    ),
    "task.take_back_refused": Event(
        "error", "A lost worker's task cannot be taken back, `error` says why; said once, others are not held up."
    ),
    "task.overdue": Event("warning", "A task failed, because its deadline passed while it waited."),
    "task.expired": Event("info", "A task was cancelled, because it expired before it had started."),
    "queues.restored": Event("info", "Queues without a row have one again: a task waits there, or a worker consumes."),
    "queues.idle": Event("info", "Queues that tasks had made were removed, because none used them for the retention."),
    "queue.deleted": Event("info", "A removed queue is gone in RabbitMQ too."),
    "queue.undeleted": Event(
        "warning", "RabbitMQ does not delete a removed queue, `reason` says why; said once, it is tried again."
    ),
    "types.unreadable": Event(
        "error", "What was announced of a `type` cannot be read, `error` says why: it is taken for an unknown one."
    ),
    "limits.unreadable": Event(
        "error", "The limits of a queue or type (`kind`, `name`) cannot be read, `error` says why: they bound nothing."
    ),
    "types.forgotten": Event("info", "No worker has had these task types for the retention; they are known no more."),
    "tasks.swept": Event("warning", "Due tasks that nothing held were found: the broker has lost messages."),
    # --- worker
    "worker.registered": Event("info", "The worker has a lease and begins to claim."),
    "worker.batches_smaller": Event(
        "warning", "A type's batch has a `size` above the worker's `concurrency`, which is the most that it can get."
    ),
    "worker.queues_unconsumed": Event(
        "warning", "No worker that lives consumes these queues of this worker's `types`: their tasks wait for one."
    ),
    "worker.queues_consumed": Event("info", "All queues of this worker's types have a worker again."),
    "worker.lease_lost": Event("warning", "The worker found its lease gone; it drops what it ran and starts over."),
    "worker.lease_given_up": Event(
        "error", "An outcome cannot be written: once the rest has ended, the worker starts over under a new lease."
    ),
    "worker.draining": Event("info", "The worker takes nothing new and lets what runs finish."),
    "worker.interrupting": Event("warning", "The drain time is over: what still runs is stopped and given back."),
    "worker.pause_unanswered": Event("warning", "The broker did not confirm that it delivers nothing more."),
    "worker.outcomes_unwritten": Event("error", "The process ends with outcomes that PostgreSQL did not take."),
    "worker.hints_unreleased": Event("warning", "Hints could not be given back at the end; their messages will be."),
    "worker.unregister_failed": Event("warning", "The lease could not be ended; it expires by itself."),
    "worker.recycling": Event("info", "The worker ends after its number of tasks, or for its memory."),
    "worker.stopped": Event("info", "The worker has drained and ends."),
    "heartbeat.failed": Event("error", "A defect ended the heartbeat's thread."),
    "claim.lost": Event("warning", "An outcome was dropped: another attempt owns the task."),
    "task.started": Event("debug", "A handler was started."),
    "task.done": Event("debug", "A handler returned."),
    "task.retried": Event("info", "An attempt failed; another one follows in `delay_seconds`."),
    "task.snoozed": Event(
        "info", "A handler raised `RetryLater`: another start follows in `delay_seconds`, and no attempt is spent."
    ),
    "task.failed": Event("warning", "An attempt failed and no other follows; the message is in the task's `errors`."),
    "task.cancelled": Event("info", "A running task was cancelled by its user."),
    "task.interrupted": Event("info", "A running task was given back because the worker ends."),
    "isolation.started": Event(
        "info", "A process `pid` is up, for types that run in processes, or tasks that were lost with a worker before."
    ),
    "isolation.spawning": Event(
        "info",
        "A module of handlers starts `threads` when it is imported, so that processes cannot be forked: each is "
        "started and imports the modules by itself.",
    ),
    "isolation.slow": Event(
        "warning", "A process has not come up for 10 s: handlers' modules or start-up functions take long."
    ),
    "isolation.not_warm": Event("warning", "A spare process did not come up, `error` says why."),
    "isolation.failed": Event(
        "error",
        "Such a process did not come up, `error` says why. A task whose type runs in processes is given back, another "
        "runs in the worker itself.",
    ),
    "isolation.died": Event("warning", "The process died, `error` says how; a task that ran in it is the culprit."),
    "lifespan.started": Event("info", "A start-up function of handlers has run."),
    "lifespan.startup_failed": Event("error", "A start-up function of handlers failed: the process ends."),
    "lifespan.ended": Event("info", "What a start-up function has begun has ended, or a shutdown function has run."),
    "lifespan.shutdown_failed": Event("error", "The end of a start-up function, or a shutdown function, failed."),
    "lifespan.unfinished": Event("error", "What start-up functions have begun has not ended within `seconds`."),
    "handler.output": Event("info", "What was printed in a process of an attempt: `text`, of some lines."),
    "task.type_unknown": Event("warning", "No handler module of this worker declares the type; said once per type."),
    "task.result_refused": Event("warning", "PostgreSQL refused a result; the task fails."),
    "task.error_refused": Event("error", "PostgreSQL refused the text of an error; it is stored without."),
    "task.outcome_refused": Event(
        "warning",
        "PostgreSQL refused an outcome, however plain, `error` says why: it is tried again, as it was.",
    ),
    "task.outcome_failed": Event("error", "A defect in writing an outcome; it is tried again."),
    "task.outcome_unwritten": Event(
        "error",
        "An outcome cannot be written, `error` says why: the worker's lease will end, and so give the task back.",
    ),
    "task.orphaned": Event(
        "error",
        "Tasks were claimed for this worker and not held by it, as when a policy hides rows: they are given back.",
    ),
    "task.progress_refused": Event("warning", "PostgreSQL refused a progress report."),
    "executor.crowded": Event(
        "warning",
        "As many calls of `asyncio.to_thread` as there are slots have not ended for 5 s; others get new threads.",
    ),
    "handler.blocked": Event("warning", "A handler holds up the event loop; `stack` shows where."),
    "handler.unblocked": Event("warning", "The event loop goes on, after `seconds`."),
    "handler.abandoned": Event("warning", "A handler goes on although it was told to end; its slot is free again."),
    # --- dispatcher and worker: RabbitMQ
    "broker.connected": Event("info", "Connected to a node of RabbitMQ."),
    "broker.unreachable": Event(
        "warning",
        "A node cannot be reached, or refuses user or virtual host: it is tried again, each reason said once.",
    ),
    "broker.lost": Event("warning", "The connection ended; another one is made."),
    "broker.link.failed": Event("error", "A defect in keeping the connection; it is made again."),
    "broker.queue.differs": Event("warning", "A queue exists with other arguments than bobrAI would give it."),
    "broker.queue.left": Event(
        "warning", "A removed queue is not bobrAI's to delete in RabbitMQ, `reason` says why: delete it by hand."
    ),
    "broker.consuming": Event("info", "Messages of a queue are taken."),
    "broker.consumer.lost": Event("warning", "A queue is not consumed for `reason`; it is tried again."),
    "broker.consumer.cancelled": Event("warning", "The broker cancelled a consumer; it is issued again."),
    "broker.consumer.silent": Event("warning", "Messages wait and none arrive; the consumer is issued again."),
    "broker.subscription.failed": Event("error", "A defect in consuming a queue; it begins again."),
    "broker.on_delivery.failed": Event("error", "A defect in taking a message; it stays unacked."),
    "broker.message.malformed": Event("error", "A message is not bobrAI's; it was put aside as a dead letter."),
    "broker.dead_letters.missing": Event(
        "warning", "The dead-letter queue could not be declared, for `reason`; it is tried again."
    ),
    "broker.dead_letters.full": Event(
        "warning", "The dead-letter queue is full; a malformed message stays where it is."
    ),
    "broker.dead_letters.unavailable": Event("warning", "A malformed message could not be put aside yet."),
    "broker.dead_letters.failed": Event("error", "A defect in putting aside malformed messages."),
    # --- external metrics
    "external_metrics.started": Event("info", "External metrics are served to Kubernetes."),
    "external_metrics.stopped": Event("info", "The external metrics server ends."),
    "external_metrics.failed": Event("error", "A request met a defect of the server and was answered with 500."),
    "front_proxy.changed": Event("info", "Whom the API server's front proxy is recognised by was read again."),
}


def table() -> str:
    """Return the catalogue as a Markdown table."""
    rows = (f"| `{name}` | {event.level} | {event.meaning} |" for name, event in EVENTS.items())
    return "\n".join(["| event | level | meaning |", "|---|---|---|", *rows])
