{{/* What the data plane computes: sizes of memory and disk in MiB, and checksums of what a pod reads at its start. */}}

{{/* A Kubernetes quantity of bytes in whole MiB: "1.5Gi" -> 1536 */}}
{{- define "bobrai.mebibytes" -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" $text -}}
{{- $factor := get (dict "Ki" "0.0009765625" "Mi" "1" "Gi" "1024" "Ti" "1048576" "M" "0.95367431640625" "G" "953.67431640625" "T" "953674.31640625") (trimPrefix $number $text) -}}
{{- if or (not $number) (not $factor) -}}
{{- fail (printf "\n%q is no size that can be computed with: write it with Ki, Mi, Gi, Ti, M, G or T, for example 2Gi" $text) -}}
{{- end -}}
{{- mulf (float64 $number) (float64 $factor) | floor | int64 -}}
{{- end -}}

{{/* The memory limit of a server in MiB: dict "values" (with resources) "name" "postgresql" */}}
{{- define "bobrai.memory" -}}
{{- $limit := dig "limits" "memory" "" (.values.resources | default dict) -}}
{{- include "bobrai.mebibytes" (required (printf "%s.resources.limits.memory is needed, for the server's own sizes follow from it" .name) $limit) -}}
{{- end -}}

{{/* The checksum of a ConfigMap's data, not of its labels: a new chart version alone restarts nothing. dict "ctx" . "file" "postgresql/configmap.yaml" */}}
{{- define "bobrai.configChecksum" -}}
{{- get (include (printf "%s/%s" .ctx.Template.BasePath .file) .ctx | fromYaml) "data" | toYaml | sha256sum -}}
{{- end -}}

{{/* A claim for a StatefulSet's template: dict "ctx" "component" "storage" (size, className). Its labels never change, for Kubernetes refuses that. */}}
{{- define "bobrai.volumeClaim" -}}
metadata:
  name: data
  labels:
    {{- include "bobrai.selectorLabels" . | nindent 4 }}
spec:
  accessModes: [ReadWriteOnce]
  {{- with .storage.className }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .storage.size }}
{{- end -}}

{{/* An environment entry from a Secret: dict "name" "PASSWORD" "secret" NAME "key" KEY "optional" true */}}
{{- define "bobrai.secretEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef: {name: {{ .secret }}, key: {{ .key }}{{ if .optional }}, optional: true{{ end }}}
{{- end -}}
