{{/* What Prometheus scrapes beside bobrAI itself. CloudNativePG has its own exporters; see also postgresql/_exporter.tpl. */}}

{{/* Non-empty when an exporter stands beside each PgBouncer of this chart. */}}
{{- define "bobrai.exporter.pgbouncer.enabled" -}}
{{- if and .Values.monitoring.exporters.pgbouncer.enabled (include "bobrai.pgbouncer.enabled" .) -}}true{{- end -}}
{{- end -}}

{{/* The container beside PgBouncer: figures are those of one process, so they are read there and not through the Service. */}}
{{- define "bobrai.exporter.pgbouncer" -}}
{{- $database := include "bobrai.database" .ctx | fromYaml -}}
- name: exporter
  image: {{ include "bobrai.image" (dict "ctx" .ctx "name" "pgbouncerExporter") }}
  imagePullPolicy: {{ .ctx.Values.images.pullPolicy }}
  env:
    - {name: PGBOUNCER_EXPORTER_CONNECTION_STRING, value: "host=127.0.0.1 port=6432 user=pgbouncer_stats dbname=pgbouncer sslmode=disable connect_timeout=5"}
    # a Secret without the key must not keep PgBouncer from starting: pgbouncer_up is then 0
    {{- include "bobrai.secretEnv" (dict "name" "PGPASSWORD" "secret" $database.secret "key" "stats-password" "optional" true) | nindent 4 }}
  ports:
    - {name: metrics, containerPort: 9127}
  resources:
    {{- toYaml .ctx.Values.monitoring.exporters.pgbouncer.resources | nindent 4 }}
  securityContext:
    {{- include "bobrai.containerSecurityContext" .ctx | nindent 4 }}
{{- end -}}

{{/*
One PodMonitor: dict "ctx" "component" "port" (a container port's name), and where they differ "pods" (the labels that select
them) and "detailed" true for RabbitMQ, whose figures by queue are a page of their own.
*/}}
{{- define "bobrai.podMonitor" -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  {{- include "bobrai.metadata" (merge (dict "labels" .ctx.Values.monitoring.labels) .) | nindent 2 }}
spec:
  podTargetLabels: [app.kubernetes.io/instance, app.kubernetes.io/component]
  selector:
    matchLabels:
      {{- if .pods }}
      {{- toYaml .pods | nindent 6 }}
      {{- else }}
      {{- include "bobrai.selectorLabels" . | nindent 6 }}
      {{- end }}
  podMetricsEndpoints:
    - port: {{ .port }}
      {{- with .ctx.Values.monitoring.interval }}
      interval: {{ . }}
      {{- end }}
      {{- if .tls }}
      {{- $tls := .ctx.Values.api.tls }}
      scheme: https
      tlsConfig:
        # pods are scraped by their addresses, which no certificate names
        serverName: {{ include "bobrai.componentName" . }}.{{ .ctx.Release.Namespace }}.svc
        {{- with $tls.caKey }}
        ca:
          secret: {name: {{ $tls.secretName }}, key: {{ . }}}
        {{- end }}
        {{- with $tls.clientSecret }}
        cert:
          secret: {name: {{ . }}, key: tls.crt}
        keySecret: {name: {{ . }}, key: tls.key}
        {{- end }}
      {{- end }}
    {{- if .detailed }}
    # what the page above has too would be there twice
    - port: {{ .port }}
      path: /metrics/detailed
      params:
        family: [queue_coarse_metrics, queue_consumer_count]
        vhost: [{{ .ctx.Values.rabbitmq.vhost | quote }}]
      {{- with .ctx.Values.monitoring.interval }}
      interval: {{ . }}
      {{- end }}
      relabelings:
        - {targetLabel: endpoint, replacement: detailed}
      metricRelabelings:
        - {sourceLabels: [__name__], regex: rabbitmq_detailed_.+, action: keep}
    {{- end }}
{{- end -}}
