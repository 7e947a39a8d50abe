{{/* PgBouncer's settings that do not depend on where it runs; CloudNativePG's Pooler takes the same. */}}
{{- define "bobrai.pgbouncer.settings" -}}
{{- $pgbouncer := .Values.pgbouncer -}}
# names statements itself, so that clients keep theirs over server connections
max_prepared_statements: 200
max_client_conn: {{ int $pgbouncer.maxClientConnections }}
default_pool_size: {{ int $pgbouncer.poolSize }}
reserve_pool_size: {{ int $pgbouncer.reservePoolSize }}
max_db_connections: {{ add (int $pgbouncer.poolSize) (int $pgbouncer.reservePoolSize) }}
# A client for which there is no server hears that before it has to take its statement for lost (BOBRAI_DATABASE_COMMAND_TIMEOUT_SECONDS),
# and tries again. A database that came back is tried at once: also when the last try still waits for an answer of the pod that is gone.
query_wait_timeout: 3
server_login_retry: 0.2
server_connect_timeout: 2
# drivers and exporters set them at the start of a connection
ignore_startup_parameters: extra_float_digits,options,search_path
tcp_keepalive: 1
tcp_keepidle: 60
tcp_keepintvl: 10
tcp_keepcnt: 6
log_connections: 0
log_disconnections: 0
{{- end -}}

{{/* The text of one setting: PgBouncer knows true and false as 1 and 0. */}}
{{- define "bobrai.pgbouncer.text" -}}
{{- if kindIs "bool" . -}}{{- ternary 1 0 . -}}{{- else -}}{{- include "bobrai.text" . -}}{{- end -}}
{{- end -}}

{{/* The most connections that all pods may open at once. A rollout doubles them: old pods keep theirs until their clients have left. */}}
{{- define "bobrai.pgbouncer.serverConnections" -}}
{{- $pgbouncer := .Values.pgbouncer -}}
{{- mul 2 (int $pgbouncer.replicas) (add (int $pgbouncer.poolSize) (int $pgbouncer.reservePoolSize)) -}}
{{- end -}}
