{{/* Non-empty when the exporter of PostgreSQL runs. */}}
{{- define "bobrai.exporter.postgresql.enabled" -}}
{{- if and .Values.monitoring.exporters.postgresql.enabled (ne .Values.postgresql.mode "operator") -}}true{{- end -}}
{{- end -}}

{{/* Where the exporter of PostgreSQL finds its user: secret, user or userKey, passwordKey. */}}
{{- define "bobrai.exporter.postgresql.login" -}}
{{- $own := .Values.monitoring.exporters.postgresql -}}
{{- if $own.existingSecret }}
secret: {{ $own.existingSecret }}
userKey: username
passwordKey: password
{{- else }}
secret: {{ include "bobrai.secretName" (dict "ctx" . "name" "postgresql") }}
user: bobrai_monitor
passwordKey: monitoring-password
{{- end }}
{{- end -}}
