"""*Data plane*: PostgreSQL, PgBouncer and RabbitMQ as bobrAI and they themselves see them.

PostgreSQL and PgBouncer are read through the exporters that the chart runs, RabbitMQ through its own plugin.
"""

from charts.dashboards.model import NAMESPACES, QUEUES, Dashboard, Panel, Query, Row
from charts.dashboards.promql import or_zero, quantile, rate, select, share, total

# neither templates nor the administrator's own
DATABASES = "!~template.*|postgres|"
POOLED = "!~pgbouncer"

SEEN = Row(
    "As bobrAI sees it",
    (
        Panel(
            "Connections up",
            "Processes that have their connection, by what it leads to. Good: as many as run; notify is the"
            " dispatchers' LISTEN, without which they poll.",
            "short",
            (Query(total("bobrai_connected", "dependency"), "{{dependency}}"),),
            width=6, decimals=0, runbook="BobraiDatabaseUnreachable",
        ),
        Panel(
            "Wait for a database connection, p99",
            "At each process's own pool. Good: under 10 ms.",
            "s",
            (Query(quantile(0.99, "bobrai_database_pool_wait_seconds", "pool"), "{{pool}}"),),
            width=6, warn=0.1, bad=1, runbook="BobraiPgbouncerClientsWaiting",
        ),
        Panel(
            "Database errors",
            "unavailable: away or too slow; rejected: PostgreSQL refused the values, a defect. Good: 0.",
            "cps",
            (Query(rate("bobrai_database_errors_total", "pool", "kind"), "{{pool}} {{kind}}"),),
            width=6, warn=0.001, runbook="BobraiDatabaseUnreachable",
        ),
        Panel(
            "Publish until the last confirm, p99",
            "RabbitMQ's answer to a batch of messages. Good: tens of milliseconds.",
            "s",
            (Query(quantile(0.99, "bobrai_publish_duration_seconds"), "p99"),),
            width=6, warn=1, bad=5, runbook="BobraiBrokerUnreachable",
        ),
        Panel(
            "Since a duty last went well",
            "Of each periodic duty, in whichever process is longest behind; but for waiters, which rests while nobody"
            " waits. Good: under a minute.",
            "s",
            (Query(f'time() - min by (loop) ({select("bobrai_loop_last_success_timestamp_seconds", loop="!~waiters")}'
                   " > 0)", "{{loop}}"),),
            width=12, warn=60, bad=300, runbook="BobraiDatabaseUnreachable",
        ),
        Panel(
            "Finished tasks removed per second",
            "After their retention. Good: as many as were accepted that long ago.",
            "cps",
            (Query(rate("bobrai_tasks_pruned_total"), "removed"),),
            width=12, runbook="BobraiDiskFilling",
        ),
    ),
)  # fmt: skip

POSTGRESQL = Row(
    "PostgreSQL",
    (
        Panel(
            "Up",
            "Whether the exporter reaches the server. Good: up.",
            "short",
            (Query(total("pg_up", "pod", function="min"), "{{pod}}"),),
            kind="stat", width=4, bad=1, falling=True, labels={"0": "down", "1": "up"},
            runbook="BobraiDatabaseUnreachable",
        ),
        Panel(
            "Connections",
            "By state, against the server's maximum. Good: well under it; many idle in transaction: somebody holds"
            " locks.",
            "short",
            (Query(total("pg_stat_activity_count", "state"), "{{state}}"),
             Query(total("pg_settings_max_connections", function="max"), "most")),
            width=10, runbook="BobraiDatabaseUnreachable",
        ),
        Panel(
            "Transactions per second",
            "Commits and rollbacks. Good: few rollbacks.",
            "cps",
            (Query(rate("pg_stat_database_xact_commit", datname=DATABASES), "commits"),
             Query(rate("pg_stat_database_xact_rollback", datname=DATABASES), "rollbacks")),
            width=10,
        ),
        Panel(
            "Rows per second",
            "Written rows; a task costs a handful of them, and as many deletes once it is pruned. Good: it follows"
            " the load.",
            "cps",
            (Query(rate("pg_stat_database_tup_inserted", datname=DATABASES), "inserted"),
             Query(rate("pg_stat_database_tup_updated", datname=DATABASES), "updated"),
             Query(rate("pg_stat_database_tup_deleted", datname=DATABASES), "deleted")),
        ),
        Panel(
            "Found in memory",
            "Blocks that were in PostgreSQL's own buffers. Good: over 99 %.",
            "percentunit",
            (Query(share(rate("pg_stat_database_blks_hit", datname=DATABASES),
                         f'({rate("pg_stat_database_blks_hit", datname=DATABASES)} + '
                         f'{rate("pg_stat_database_blks_read", datname=DATABASES)})'), "hits"),),
            most=1, warn=0.99, bad=0.9, falling=True,
        ),
        Panel(
            "Longest transaction",
            "Good: seconds. A transaction of an hour keeps vacuum from cleaning, and tables grow.",
            "s",
            (Query(total("pg_stat_activity_max_tx_duration", "state", function="max"), "{{state}}"),),
            warn=300, bad=3600,
        ),
        Panel(
            "Dead rows",
            "Old versions that vacuum has not cleaned yet. Good: it goes up and down, under a fifth of the living"
            " rows.",
            "short",
            (Query(total("pg_stat_user_tables_n_dead_tup", "relname", function="max"), "{{relname}}"),),
        ),
        Panel(
            "Size",
            "Of the database, and of the write-ahead log. Good: it levels off once as much is pruned as comes in.",
            "bytes",
            (Query(total("pg_database_size_bytes", "datname", function="max", datname=DATABASES), "{{datname}}"),
             Query(total("pg_wal_size_bytes", function="max"), "write-ahead log")),
            runbook="BobraiDiskFilling",
        ),
        Panel(
            "Locks and deadlocks",
            "Locks that are held, by mode, and deadlocks per second. Good: no deadlock, ever.",
            "short",
            (Query(total("pg_locks_count", "mode", datname=DATABASES) + " > 0", "{{mode}}"),
             Query(rate("pg_stat_database_deadlocks", datname=DATABASES), "deadlocks per second")),
        ),
        Panel(
            "Replicas behind",
            "Bytes of the write-ahead log that a streaming replica has not replayed. Good: under a megabyte.",
            "bytes",
            (Query(or_zero(total("pg_stat_replication_pg_wal_lsn_diff", "client_addr", function="max"), "pg_up",
                           client_addr="no replica"), "{{client_addr}}"),),
            warn=100e6, bad=1e9,
        ),
        Panel(
            "Volumes in use",
            "As the kubelet measures them. Good: under three quarters. A full disk stops PostgreSQL.",
            "percentunit",
            (Query("1 - " + total("kubelet_volume_stats_available_bytes", "persistentvolumeclaim", function="min",
                                  persistentvolumeclaim="~.*(postgresql|rabbitmq|backup).*")
                   + " / " + total("kubelet_volume_stats_capacity_bytes", "persistentvolumeclaim", function="min",
                                   persistentvolumeclaim="~.*(postgresql|rabbitmq|backup).*"),
                   "{{persistentvolumeclaim}}"),),
            most=1, warn=0.75, bad=0.85, runbook="BobraiDiskFilling",
        ),
    ),
)  # fmt: skip

PGBOUNCER = Row(
    "PgBouncer",
    (
        Panel(
            "Clients",
            "Good: none waits. Active ones are all that are connected, at work or not.",
            "short",
            (Query(total("pgbouncer_pools_client_active_connections", database=POOLED), "connected"),
             Query(total("pgbouncer_pools_client_waiting_connections", database=POOLED), "waiting")),
            runbook="BobraiPgbouncerClientsWaiting",
        ),
        Panel(
            "Server connections",
            "To PostgreSQL. Good: active stays under the pools' size.",
            "short",
            (Query(total("pgbouncer_pools_server_active_connections", database=POOLED), "active"),
             Query(total("pgbouncer_pools_server_idle_connections", database=POOLED), "idle"),
             Query(total("pgbouncer_databases_pool_size", name=POOLED), "pool size")),
            runbook="BobraiPgbouncerClientsWaiting",
        ),
        Panel(
            "Longest wait now",
            "Of a client that has no server connection yet. Good: 0.",
            "s",
            (Query(total("pgbouncer_pools_client_maxwait_seconds", function="max", database=POOLED), "longest"),),
            warn=1, bad=10, runbook="BobraiPgbouncerClientsWaiting",
        ),
        Panel(
            "Queries per second",
            "Good: it follows the load, with few transactions per task.",
            "cps",
            (Query(rate("pgbouncer_stats_totals_queries_pooled_total", database=POOLED), "queries"),
             Query(rate("pgbouncer_stats_totals_sql_transactions_pooled_total", database=POOLED), "transactions")),
        ),
        Panel(
            "Mean time of a query",
            "As PgBouncer measures it, PostgreSQL's time and the way there. Good: under 10 ms.",
            "s",
            (Query(f'{rate("pgbouncer_stats_totals_queries_duration_seconds_total", database=POOLED)} / '
                   f'({rate("pgbouncer_stats_totals_queries_pooled_total", database=POOLED)} > 0)', "mean"),),
            warn=0.1, bad=1,
        ),
        Panel(
            "Seconds waited per second",
            "All clients together, for a server connection. Good: near 0; at 1 there is always one that waits.",
            "s",
            (Query(rate("pgbouncer_stats_totals_client_wait_seconds_total", database=POOLED), "waited"),),
            warn=0.1, bad=1, runbook="BobraiPgbouncerClientsWaiting",
        ),
    ),
)  # fmt: skip

RABBITMQ = Row(
    "RabbitMQ",
    (
        Panel(
            "Nodes",
            "That answer, and that their peers do not reach. Good: all, and 0.",
            "short",
            (Query(f'count({select("rabbitmq_identity_info", rabbitmq_endpoint="aggregated")})', "answer"),
             Query(total("rabbitmq_unreachable_cluster_peers_count", function="max"), "unreachable for a peer")),
            kind="stat", width=6, decimals=0, runbook="BobraiRabbitmqNodeDown",
        ),
        Panel(
            "Alarms",
            "Nodes that block publishers. Good: 0.",
            "short",
            (Query(total("rabbitmq_alarms_memory_used_watermark"), "memory"),
             Query(total("rabbitmq_alarms_free_disk_space_watermark"), "disk")),
            kind="stat", width=6, bad=1, decimals=0, runbook="BobraiRabbitmqAlarm",
        ),
        Panel(
            "Ready and unacked messages",
            "By queue. Good: a window each, whatever the backlog.",
            "short",
            (Query(total("rabbitmq_detailed_queue_messages_ready", "queue", function="max"), "{{queue}} ready"),
             Query(total("rabbitmq_detailed_queue_messages_unacked", "queue", function="max"), "{{queue}} unacked")),
            width=12, runbook="BobraiOutboxLag",
        ),
        Panel(
            "Messages per second",
            "Received, confirmed, delivered, acknowledged. Good: the lines lie close together.",
            "cps",
            (Query(rate("rabbitmq_global_messages_received_total"), "received"),
             Query(rate("rabbitmq_global_messages_confirmed_total"), "confirmed"),
             Query(rate("rabbitmq_global_messages_delivered_total"), "delivered"),
             Query(rate("rabbitmq_global_messages_acknowledged_total"), "acknowledged"),
             Query(rate("rabbitmq_global_messages_redelivered_total"), "delivered again")),
        ),
        Panel(
            "Consumers by queue",
            "Good: at least one for each living worker of the queue.",
            "short",
            (Query(total("rabbitmq_detailed_queue_consumers", "queue", function="max"), "{{queue}}"),),
            decimals=0, runbook="BobraiNoWorkerForBacklog",
        ),
        Panel(
            "Messages that no queue took",
            "Good: 0. More: somebody deleted a queue that bobrAI publishes to.",
            "cps",
            (Query(rate("rabbitmq_global_messages_unroutable_dropped_total"), "dropped"),
             Query(rate("rabbitmq_global_messages_unroutable_returned_total"), "returned")),
            bad=0.001, runbook="BobraiTasksSwept",
        ),
        Panel(
            "Memory",
            "Of what a node may use before its alarm blocks publishers. Good: under 80 %.",
            "percentunit",
            (Query(total("rabbitmq_process_resident_memory_bytes", "pod", function="max") + " / "
                   + total("rabbitmq_resident_memory_limit_bytes", "pod", function="max"), "{{pod}}"),),
            warn=0.8, bad=1, runbook="BobraiRabbitmqAlarm",
        ),
        Panel(
            "Free disk over its limit",
            "How many times the limit below which the alarm blocks publishers. Good: well over 2.",
            "short",
            (Query(total("rabbitmq_disk_space_available_bytes", "pod", function="min") + " / "
                   + total("rabbitmq_disk_space_available_limit_bytes", "pod", function="min"), "{{pod}}"),),
            warn=2, bad=1, falling=True, runbook="BobraiRabbitmqAlarm",
        ),
        Panel(
            "Connections and channels",
            "A dispatcher and a worker have one connection each. Good: steady; opened ones per second near 0.",
            "short",
            (Query(total("rabbitmq_connections"), "connections"), Query(total("rabbitmq_channels"), "channels"),
             Query(rate("rabbitmq_connections_opened_total"), "opened per second")),
            runbook="BobraiBrokerUnreachable",
        ),
    ),
)  # fmt: skip

DASHBOARD = Dashboard(
    "data-plane",
    "Data plane",
    "PostgreSQL, PgBouncer and RabbitMQ: are they there, are they quick, what is nearly full? Operators' own exporters"
    " (CloudNativePG's cnpg_*) have dashboards of their own.",
    (SEEN, POSTGRESQL, PGBOUNCER, RABBITMQ),
    (NAMESPACES, QUEUES),
)
