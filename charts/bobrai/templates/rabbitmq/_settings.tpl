{{/* RabbitMQ's configuration and policies; the operator's cluster takes what it does not decide itself. */}}

{{/* The labels that select an operator's nodes, as {pods: {…}}; empty for those of this chart, which carry the usual ones. */}}
{{- define "bobrai.rabbitmq.pods" -}}
{{- if eq .Values.rabbitmq.mode "operator" -}}
pods: {app.kubernetes.io/name: {{ include "bobrai.componentName" (dict "ctx" . "component" "rabbitmq") }}, app.kubernetes.io/component: rabbitmq}
{{- end -}}
{{- end -}}

{{/* rabbitmq.conf without what only the bundled nodes need. The watermark is absolute, for a share would be one of the machine's memory. */}}
{{- define "bobrai.rabbitmq.settings" -}}
{{- $memory := include "bobrai.memory" (dict "values" .Values.rabbitmq "name" "rabbitmq") | int64 -}}
{{- $disk := include "bobrai.mebibytes" .Values.rabbitmq.storage.size | int64 -}}
{{- $watermark := div (mul $memory 6) 10 -}}
vm_memory_high_watermark.absolute: {{ $watermark }}MiB
disk_free_limit.absolute: {{ min (max $watermark 1024) (div $disk 4) }}MiB
# queues live on all nodes, and their leaders on different ones
default_queue_type: quorum
queue_leader_locator: balanced
# a node that was replaced gets its copies back without anybody's help
quorum_queue.continuous_membership_reconciliation.enabled: "true"
quorum_queue.continuous_membership_reconciliation.target_group_size: {{ min 3 (int .Values.rabbitmq.replicas) }}
raft.wal_max_size_bytes: "{{ mul (int .Values.rabbitmq.raftLogMebibytes) 1048576 }}"
# nobody without a name
anonymous_login_user: none
auth_mechanisms.1: PLAIN
auth_mechanisms.2: AMQPLAIN
# the user and the policies; an unchanged file is not read again
definitions.import_backend: local_filesystem
definitions.local.path: /run/bobrai/definitions
definitions.skip_if_unchanged: "true"
{{- end -}}

{{/* rabbitmq.conf of the bundled nodes. */}}
{{- define "bobrai.rabbitmq.bundledSettings" -}}
{{- $memory := include "bobrai.memory" (dict "values" .Values.rabbitmq "name" "rabbitmq") | int64 -}}
{{- if eq (mod (int .Values.rabbitmq.replicas) 2) 0 }}
{{- fail (printf "\nrabbitmq.replicas=%d: use 1, 3 or 5. An even number of nodes survives no more losses than one node less" (int .Values.rabbitmq.replicas)) }}
{{- end }}
{{- if lt (int64 $memory) (mul 4 (int .Values.rabbitmq.raftLogMebibytes)) }}
{{- fail (printf "\nrabbitmq.resources.limits.memory is %d MiB; a node needs at least 4 x rabbitmq.raftLogMebibytes (%d)" $memory (int .Values.rabbitmq.raftLogMebibytes)) }}
{{- end }}
cluster_name: {{ include "bobrai.componentName" (dict "ctx" . "component" "rabbitmq") }}
# the first pod makes the cluster and all others wait for it; no question to the Kubernetes API
cluster_formation.peer_discovery_backend: k8s
cluster_formation.target_cluster_size_hint: {{ int .Values.rabbitmq.replicas }}
listeners.tcp.default: 5672
management.tcp.port: 15672
prometheus.tcp.port: 15692
log.console: "true"
log.console.level: info
log.console.use_colors: "off"
log.file: "false"
{{ include "bobrai.rabbitmq.settings" . }}
{{- end -}}

{{/* The policies, as `bobrai rabbitmq-definitions` prints them, for the virtual host in use. */}}
{{- define "bobrai.rabbitmq.definitions" -}}
{{- $limits := .Values.rabbitmq.policies -}}
{{- $host := .Values.rabbitmq.vhost -}}
{{- $everywhere := dict "queue-leader-locator" "balanced" "max-length" (int64 $limits.maxLength) -}}
{{- $queues := merge (dict
  "overflow" "reject-publish"
  "delivery-limit" (int $limits.deliveryLimit)
  "dead-letter-strategy" "at-least-once"
  "dead-letter-exchange" ""
  "dead-letter-routing-key" "bobrai._dead-letters"
  "consumer-timeout" (mul (int $limits.consumerTimeoutSeconds) 1000)) $everywhere -}}
{{- $letters := merge (dict "overflow" "drop-head") $everywhere -}}
{{- toPrettyJson (dict
  "vhosts" (list (dict "name" $host))
  "policies" (list
    (dict "name" "bobrai-queues" "vhost" $host "pattern" "^bobrai\\." "apply-to" "quorum_queues" "priority" 10 "definition" $queues)
    (dict "name" "bobrai-dead-letters" "vhost" $host "pattern" "^bobrai\\._dead\\-letters$" "apply-to" "quorum_queues" "priority" 20 "definition" $letters))) -}}
{{- end -}}

{{/* The init container's script needs these, in both modes: dict "ctx" . "secret" NAME "tags" TAG */}}
{{- define "bobrai.rabbitmq.userEnv" -}}
{{- include "bobrai.secretEnv" (dict "name" "RABBITMQ_USER" "secret" .secret "key" "username") }}
{{ include "bobrai.secretEnv" (dict "name" "RABBITMQ_PASSWORD" "secret" .secret "key" "password") }}
- name: RABBITMQ_TAGS
  value: {{ .tags }}
- name: VIRTUAL_HOST
  value: {{ .ctx.Values.rabbitmq.vhost | quote }}
{{- end -}}
