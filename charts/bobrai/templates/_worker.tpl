{{/* A pool with its gaps filled from workers.defaults: dict "ctx" . "pool" NAME -> the merged map. null replicas stay null. */}}
{{- define "bobrai.pool" -}}
{{- $own := get .ctx.Values.workers.pools .pool | default dict -}}
{{- include "bobrai.merged" (dict "under" .ctx.Values.workers.defaults "over" $own) -}}
{{- end -}}

{{/* Non-empty when the pool is scaled by somebody: dict "ctx" . "values" (the pool) */}}
{{- define "bobrai.pool.autoscaled" -}}
{{- if and .values.autoscaling.enabled (ne .ctx.Values.autoscaling.provider "none") -}}true{{- end -}}
{{- end -}}

{{/* The modules of a pool, by commas: its own, or the chart's with those written inline. */}}
{{- define "bobrai.pool.handlers" -}}
{{- if .values.handlers -}}
{{- join "," .values.handlers -}}
{{- else -}}
{{- $inline := list -}}
{{- range $file := keys .ctx.Values.handlers.inline | sortAlpha -}}{{- $inline = append $inline (trimSuffix ".py" $file) -}}{{- end -}}
{{- join "," (concat .ctx.Values.handlers.modules $inline) -}}
{{- end -}}
{{- end -}}

{{/* What one worker reads from its environment, as a map. */}}
{{- define "bobrai.pool.env" -}}
BOBRAI_WORKER_HEALTH_BIND: {value: "0.0.0.0:8003"}
BOBRAI_WORKER_QUEUES: {value: {{ join "," .values.queues | quote }}}
BOBRAI_WORKER_CONCURRENCY: {value: {{ .values.concurrency | int64 | quote }}}
BOBRAI_WORKER_DRAIN_SECONDS: {value: {{ .values.drainSeconds | int64 | quote }}}
BOBRAI_WORKER_MAX_TASKS: {value: {{ .values.maxTasks | int64 | quote }}}
BOBRAI_WORKER_MAX_MEMORY_MIB: {value: {{ .values.maxMemoryMib | int64 | quote }}}
{{- with include "bobrai.pool.handlers" . }}
BOBRAI_HANDLERS: {value: {{ . | quote }}}
{{- end }}
{{- if .ctx.Values.handlers.inline }}
PYTHONPATH: {value: "/etc/bobrai/handlers:/app"}
{{- end }}
{{- end -}}
