{{/* PostgreSQL's settings as a map, for the bundled server and its replicas; sizes follow from the memory limit and the volume. */}}
{{- define "bobrai.postgresql.settings" -}}
{{- $postgresql := .Values.postgresql -}}
{{- $memory := include "bobrai.memory" (dict "values" $postgresql "name" "postgresql") | int64 -}}
{{- $disk := include "bobrai.mebibytes" $postgresql.storage.size | int64 -}}
{{- $wal := min 4096 (div $disk 5) -}}
# where
listen_addresses: "*"
port: 5432
unix_socket_directories: /var/run/postgresql
hba_file: /etc/bobrai/postgresql/pg_hba.conf
max_connections: {{ int $postgresql.maxConnections }}
# memory
shared_buffers: {{ div $memory 4 }}MB
effective_cache_size: {{ div (mul $memory 6) 10 }}MB
maintenance_work_mem: {{ max 32 (div $memory 16) }}MB
work_mem: 8MB
huge_pages: "off"
# many small batches: fewer full pages in the log, no compiler for statements of microseconds, plans for fast disks
wal_level: replica
wal_compression: lz4
max_wal_size: {{ $wal }}MB
min_wal_size: {{ div $wal 4 }}MB
checkpoint_timeout: 15min
jit: "off"
random_page_cost: 1.1
# rows change several times within a second, so dead ones are many
autovacuum_naptime: 15s
autovacuum_vacuum_cost_limit: 2000
# replicas: what one of them missed is kept, but never until the disk is full
max_wal_senders: 10
max_replication_slots: 10
max_slot_wal_keep_size: {{ $wal }}MB
idle_replication_slot_timeout: 2d
# clients that are gone hold nothing for long
tcp_keepalives_idle: 60
tcp_keepalives_interval: 10
tcp_keepalives_count: 6
client_connection_check_interval: 10s
idle_in_transaction_session_timeout: 15min
# logs
log_line_prefix: "%m [%p] %q%u@%d %a "
log_min_duration_statement: 1s
log_lock_waits: "on"
# a slow statement is logged without its parameters, which are tasks' payloads
log_parameter_max_length: 0
log_timezone: UTC
timezone: UTC
shared_preload_libraries: pg_stat_statements
{{- end -}}
