"""*API*: do clients get answers, how fast, and what are they refused?"""

from charts.dashboards.model import NAMESPACES, Dashboard, Panel, Query, Row
from charts.dashboards.promql import known, mean, of, or_zero, quantile, rate, select, share, total

# what Kubernetes and Prometheus ask is no client's
CLIENTS = "!~/livez|/readyz|/health|/metrics"
ALL = rate("bobrai_http_requests_total", route=CLIENTS)
BATCHES = "~submit|read"

ANSWERS = Row(
    "Answers",
    (
        Panel(
            "Requests per second",
            "Probes and scrapes are left out, here and below. Good: what you expect at this hour.",
            "reqps",
            (Query(ALL),),
            kind="stat", width=6, height=5,
        ),
        Panel(
            "Errors",
            "Requests that got a 5xx. Good: under 0.1 %, which is what the alert's budget allows.",
            "percentunit",
            (Query(share(rate("bobrai_http_requests_total", status="~5..", route=CLIENTS), ALL)),),
            kind="stat", width=6, height=5, warn=0.001, bad=0.0144, runbook="BobraiApiErrorRatio",
        ),
        Panel(
            "Time to submit, p99",
            "POST /api/v1/tasks: 99 of 100 tasks are committed and acknowledged within this. Good: under 100 ms.",
            "s",
            (Query(known(quantile(0.99, "bobrai_http_request_duration_seconds", method="POST",
                                  route="/api/v1/tasks"))),),
            kind="stat", width=6, height=5, empty="idle", warn=0.25, bad=1, runbook="BobraiApiLatency",
        ),
        Panel(
            "API processes",
            "That Prometheus reaches. Good: as many as the Deployment has.",
            "short",
            (Query(or_zero(f'count({select("bobrai_build_info", process="api")})')),),
            kind="stat", width=6, height=5, bad=1, falling=True, decimals=0, runbook="BobraiProcessMissing",
        ),
        Panel(
            "Requests by route",
            "Good: what you expect at this hour.",
            "reqps",
            (Query(rate("bobrai_http_requests_total", "method", "route", route=CLIENTS), "{{method}} {{route}}"),),
            stacked=True, width=12,
        ),
        Panel(
            "Requests by status",
            "Good: 2xx. 422 and 409: clients err; 429: a queue is full; 499: clients did not wait for the answer;"
            " 503: the database is away.",
            "reqps",
            (Query(rate("bobrai_http_requests_total", "status", route=CLIENTS), "{{status}}"),),
            stacked=True, width=12, runbook="BobraiApiErrorRatio",
        ),
        Panel(
            "Time to answer what writes, p99",
            "Submits, cancels, replays. A dot is one request; it leads to its trace. Good: under 100 ms; the alert"
            " begins at 1 s.",
            "s",
            (Query(quantile(0.99, "bobrai_http_request_duration_seconds", "method", "route", method="!~GET|HEAD"),
                   "{{method}} {{route}}", exemplar=True),),
            warn=0.25, bad=1, runbook="BobraiApiLatency",
        ),
        Panel(
            "Time to answer what reads, p95",
            "With ?wait= the wait for the task is included, so GET of one task may well take seconds. Good: otherwise"
            " under 100 ms.",
            "s",
            (Query(quantile(0.95, "bobrai_http_request_duration_seconds", "route", method="GET", route=CLIENTS),
                   "{{route}}", exemplar=True),),
            runbook="BobraiApiLatency",
        ),
        Panel(
            "Submits refused",
            "By reason. invalid: the payload does not fit its type; queue_full: the queue's backlog is at its limit"
            " (429); unavailable: the database is away (503). Good: little, and not one reason alone.",
            "cps",
            (Query(or_zero(rate("bobrai_submissions_refused_total", "reason"), reason="none"), "{{reason}}"),),
            runbook="BobraiApiErrorRatio",
        ),
    ),
)  # fmt: skip

ACCESS = Row(
    "Who asks",
    (
        Panel(
            "Requests refused for who asked",
            "By reason. missing: no credential where one is needed; scope: a good one that may do other things; all"
            " others: a key or token that proves nothing. Good: little; much of one reason is a client that shows what"
            " no longer works, or somebody who guesses.",
            "reqps",
            (Query(or_zero(rate("bobrai_access_refused_total", "reason"), reason="none"), "{{reason}}"),),
            runbook="BobraiCredentialsRefused",
        ),
        Panel(
            "Requests throttled",
            "Answered with 429 for their number. key, oidc: of a principal that is over its rate; anonymous, refused:"
            " of an address without a credential, or with many that prove nothing. Good: 0, or a client that you know.",
            "reqps",
            (Query(or_zero(rate("bobrai_access_throttled_total", "kind"), kind="none"), "{{kind}}"),),
        ),
        Panel(
            "Age of identity providers' keys",
            "The oldest of all API processes. Good: up and down below where they are read again; above where they end"
            " the provider's tokens are answered with 503.",
            "s",
            (Query(total("bobrai_oidc_keys_age_seconds", "issuer", function="max"), "{{issuer}}"),
             Query(total("bobrai_oidc_keys_age_limit_seconds", "issuer", function="min", limit="refresh"),
                   "{{issuer}}: read again"),
             Query(total("bobrai_oidc_keys_age_limit_seconds", "issuer", function="min", limit="keep"),
                   "{{issuer}}: end")),
            empty="no identity provider", runbook="BobraiOidcKeysStale",
        ),
        Panel(
            "Usable keys of identity providers",
            "What the API process that has the fewest can verify tokens with. Good: 1 or more; without any, each token"
            " of the provider is refused.",
            "short",
            (Query(total("bobrai_oidc_usable_keys", "issuer", function="min"), "{{issuer}}"),),
            empty="no identity provider", runbook="BobraiOidcKeysStale",
        ),
        Panel(
            "Tokens that nobody could verify",
            "For want of the provider's keys. unreadable; crowded: too many requests wait for them; hanging: reading"
            " them takes long. Good: 0.",
            "reqps",
            (Query(or_zero(rate("bobrai_oidc_unverified_total", "cause"), cause="none"), "{{cause}}"),),
            runbook="BobraiOidcKeysStale",
        ),
        Panel(
            "Requests that wait for identity providers",
            "Their tokens name a key that is not known, so that the provider is asked. Good: 0, but for a moment.",
            "short",
            (Query(total("bobrai_oidc_waiting_requests", "issuer"), "{{issuer}}"),),
            empty="no identity provider", runbook="BobraiOidcKeysStale",
        ),
    ),
)  # fmt: skip

INSIDE = Row(
    "Inside",
    (
        Panel(
            "Requests in progress",
            "Of those, some wait for a task to end (?wait=), which costs little. Good: small beside the waiters.",
            "short",
            (Query(total("bobrai_http_requests_in_progress"), "in progress"),
             Query(total("bobrai_task_waiters"), "wait for a task")),
            runbook="BobraiApiLatency",
        ),
        Panel(
            "Connections that the server ended",
            "Ports of all processes. silent, head, rest, close, stall: its client took too long with that; place: there"
            " were too many. Good: idle alone; much of the others is somebody who holds connections open.",
            "cps",
            (Query(or_zero(rate("bobrai_http_connections_ended_total", "reason"), reason="none"), "{{reason}}"),),
        ),
        Panel(
            "Submits per group commit",
            "Submits that share a transaction. Good: 1 when idle, more under load.",
            "short",
            (Query(mean("bobrai_batch_size", "batch", batch=BATCHES), "{{batch}}"),),
        ),
        Panel(
            "Time of a group commit, p95",
            "Good: under 20 ms.",
            "s",
            (Query(quantile(0.95, "bobrai_batch_duration_seconds", "batch", batch=BATCHES), "{{batch}}"),),
            warn=0.1, bad=1, runbook="BobraiApiLatency",
        ),
        Panel(
            "Database connections",
            "Of the API's pools. Good: used stays under the most that the pools may open.",
            "short",
            (Query(total("bobrai_database_connections", "state", pool="api"), "{{state}}"),
             Query(total("bobrai_database_pool_size", pool="api"), "most"),
             Query(total("bobrai_database_pool_waiting", pool="api"), "calls waiting")),
            runbook="BobraiPgbouncerClientsWaiting",
        ),
        Panel(
            "Database errors",
            "unavailable: away or too slow; rejected: PostgreSQL refused the values, a defect. Good: 0.",
            "cps",
            (Query(rate("bobrai_database_errors_total", "kind", pool="api"), "{{kind}}"),),
            warn=0.001, runbook="BobraiDatabaseUnreachable",
        ),
        Panel(
            "Event loop lag by API process, p99",
            "Good: under 50 ms. More: too little CPU for the load; run more replicas.",
            "s",
            (Query(of("api", quantile(0.99, "bobrai_event_loop_lag_seconds", "namespace", "pod")), "{{pod}}"),),
            warn=0.1, bad=1, runbook="BobraiApiLatency",
        ),
    ),
)  # fmt: skip

DASHBOARD = Dashboard(
    "api",
    "API",
    "Do clients get answers, how fast, and what are they refused?",
    (ANSWERS, ACCESS, INSIDE),
    (NAMESPACES,),
)
