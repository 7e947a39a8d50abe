{{/* What several parts have in the same form beside their pods. */}}

{{/* A disruption budget: dict "ctx" "component" "values" (with podDisruptionBudget), "policy" AlwaysAllow or IfHealthyBudget, "pods" where other labels select them. */}}
{{- define "bobrai.podDisruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "bobrai.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  unhealthyPodEvictionPolicy: {{ .policy | default "AlwaysAllow" }}
  selector:
    matchLabels:
      {{- if .pods }}
      {{- toYaml .pods | nindent 6 }}
      {{- else }}
      {{- include "bobrai.selectorLabels" . | nindent 6 }}
      {{- end }}
{{- end -}}

{{/* A service account that may do nothing: dict "ctx" "component". Its token is mounted nowhere. */}}
{{- define "bobrai.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "bobrai.metadata" . | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}

{{/*
Annotations of a pod: where it is scraped, unless PodMonitors say so, which of its containers is meant when none is named, and the
wished ones.
dict "ctx" . "pod" (the merged pod values) "port" (number; none: not scraped) "container" (a name, where there are several) "more" (a
map, checksums for example)
*/}}
{{- define "bobrai.podAnnotations" -}}
{{- $found := dict -}}
{{- if and .port (eq .ctx.Values.monitoring.scrape "annotations") -}}
{{- $found = dict "prometheus.io/scrape" "true" "prometheus.io/port" (toString .port) "prometheus.io/path" "/metrics" -}}
{{- end -}}
{{- $found = merge $found (.more | default dict) (.pod.annotations | default dict) -}}
{{- with .container -}}{{- $found = merge $found (dict "kubectl.kubernetes.io/default-container" .) -}}{{- end -}}
{{- if $found -}}{{- toYaml $found -}}{{- end -}}
{{- end -}}
