{{/* The parts of a bundled node's pod. */}}

{{- define "bobrai.rabbitmq.mounts" -}}
- {name: config, mountPath: /etc/rabbitmq, readOnly: true}
- {name: home, mountPath: /var/lib/rabbitmq}
- {name: data, mountPath: /var/lib/rabbitmq/mnesia}
- {name: definitions, mountPath: /run/bobrai}
- {name: logs, mountPath: /var/log/rabbitmq}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{/* Who this node is: dict "ctx" . "name" (of the StatefulSet). The name ends in -0, -1, …, by which nodes find the first. */}}
{{- define "bobrai.rabbitmq.nodeEnv" -}}
- name: POD_NAME
  valueFrom:
    fieldRef: {fieldPath: metadata.name}
- name: NODE_HOST
  value: $(POD_NAME).{{ .name }}-nodes.{{ .ctx.Release.Namespace }}
- {name: RABBITMQ_NODENAME, value: rabbit@$(NODE_HOST)}
- {name: HOME, value: /var/lib/rabbitmq}
{{- end -}}

{{/* All nodes with the port of their management pages: dict "ctx" . "name" (of the StatefulSet) */}}
{{- define "bobrai.rabbitmq.peers" -}}
{{- $peers := list -}}
{{- range $number := until (int .ctx.Values.rabbitmq.replicas) -}}
{{- $peers = append $peers (printf "rabbit@%s-%d.%s-nodes.%s:15672" $.name $number $.name $.ctx.Release.Namespace) -}}
{{- end -}}
{{- join " " $peers -}}
{{- end -}}

{{/* The variables of a node: dict "ctx" . "name" (of the StatefulSet) */}}
{{- define "bobrai.rabbitmq.serverEnv" -}}
{{- $values := .ctx.Values.rabbitmq -}}
{{- include "bobrai.rabbitmq.nodeEnv" . }}
- {name: RABBITMQ_USE_LONGNAME, value: "true"}
- {name: RABBITMQ_CONFIG_FILE, value: /etc/rabbitmq/rabbitmq.conf}
- {name: RABBITMQ_CONFIG_FILES, value: /run/bobrai/conf.d}
- {name: RABBITMQ_ENABLED_PLUGINS_FILE, value: /etc/rabbitmq/enabled_plugins}
- {name: RABBITMQ_MNESIA_BASE, value: /var/lib/rabbitmq/mnesia}
- {name: RABBITMQ_LOG_BASE, value: /var/log/rabbitmq}
# the node replaces the shell and hears SIGTERM itself
- {name: RUNNING_UNDER_SYSTEMD, value: "true"}
# a dump of the memory would fill the volume before anybody reads it
- {name: ERL_CRASH_DUMP_SECONDS, value: "0"}
- {name: CLUSTER_SIZE, value: {{ $values.replicas | quote }}}
- {name: QUORUM_WAIT_SECONDS, value: {{ $values.quorumWaitSeconds | quote }}}
- {name: DRAIN_SECONDS, value: {{ $values.drainSeconds | quote }}}
{{- end -}}

{{/* dict "ctx" . "name" (of the StatefulSet) */}}
{{- define "bobrai.rabbitmq.container" -}}
{{- $values := .ctx.Values.rabbitmq -}}
- name: rabbitmq
  image: {{ include "bobrai.image" (dict "ctx" .ctx "name" "rabbitmq") }}
  imagePullPolicy: {{ .ctx.Values.images.pullPolicy }}
  command: [bash, /etc/rabbitmq/start.sh]
  env:
    {{- $own := include "bobrai.rabbitmq.serverEnv" . | fromYamlArray }}
    {{- include "bobrai.lastOfEach" (concat $own $values.extraEnv) | nindent 4 }}
  ports:
    - {name: amqp, containerPort: 5672}
    - {name: management, containerPort: 15672}
    - {name: prometheus, containerPort: 15692}
    - {name: epmd, containerPort: 4369}
    - {name: cluster-rpc, containerPort: 25672}
  # until all nodes are members: a client that came earlier would get queues on fewer of them
  startupProbe:
    httpGet: {path: /api/health/checks/reached-target-cluster-size, port: management}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: {{ max 1 (div (int $values.startupSeconds) 5) }}
  readinessProbe:
    tcpSocket: {port: amqp}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  # no liveness probe: a node in an alarm or behind its peers must not be restarted
  lifecycle:
    preStop:
      exec: {command: [bash, /etc/rabbitmq/stop.sh]}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    {{- include "bobrai.containerSecurityContext" . | nindent 4 }}
  volumeMounts:
    {{- include "bobrai.rabbitmq.mounts" . | nindent 4 }}
{{- end -}}
