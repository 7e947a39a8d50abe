{{/* Names: everything that a release makes is called after it, so that several live in one namespace. */}}

{{- define "bobrai.name" -}}
{{- default .Chart.Name .Values.nameOverride -}}
{{- end -}}

{{/* The release's name when it already says bobrai. validate-names.yaml refuses one that is too long, for a cut one may be another's. */}}
{{- define "bobrai.fullname" -}}
{{- $name := include "bobrai.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name -}}
{{- end -}}
{{- end -}}

{{/* The name of one part: dict "ctx" . "component" "api" */}}
{{- define "bobrai.componentName" -}}
{{- printf "%s-%s" (include "bobrai.fullname" .ctx) .component -}}
{{- end -}}

{{/* Selectors never change over the life of a release. dict "ctx" . "component" "api" */}}
{{- define "bobrai.selectorLabels" -}}
app.kubernetes.io/name: {{ include "bobrai.name" .ctx }}
app.kubernetes.io/instance: {{ .ctx.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object; those that select pods and that Helm knows its objects by are nobody else's to give. */}}
{{- define "bobrai.labels" -}}
{{- $fixed := merge (dict "app.kubernetes.io/managed-by" .ctx.Release.Service) (include "bobrai.selectorLabels" . | fromYaml) -}}
{{- $usual := dict
  "app.kubernetes.io/part-of" "bobrai"
  "app.kubernetes.io/version" .ctx.Chart.AppVersion
  "helm.sh/chart" (printf "%s-%s" .ctx.Chart.Name .ctx.Chart.Version | replace "+" "_") -}}
{{- toYaml (merge $fixed (.labels | default dict) .ctx.Values.commonLabels $usual) -}}
{{- end -}}

{{/* The metadata of every object: dict "ctx" . "component" "api", and "name", "labels" and "annotations" where they differ. */}}
{{- define "bobrai.metadata" -}}
name: {{ .name | default (include "bobrai.componentName" .) }}
namespace: {{ .ctx.Release.Namespace }}
labels:
  {{- include "bobrai.labels" . | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .ctx.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image's reference: dict "ctx" . "name" "api" (a key of images) or "image" (a map with the same fields). */}}
{{- define "bobrai.image" -}}
{{- $image := .image -}}
{{- if not $image -}}{{- $image = get .ctx.Values.images .name -}}{{- end -}}
{{- if $image.reference -}}
{{- $image.reference -}}
{{- else -}}
{{- $registry := $image.registry | default .ctx.Values.images.registry -}}
{{- $repository := ternary (printf "%s/%s" $registry $image.repository) $image.repository (not (empty $registry)) -}}
{{- $tag := $image.tag | default .ctx.Chart.AppVersion -}}
{{- printf "%s:%s%s" $repository $tag (ternary (printf "@%s" $image.digest) "" (not (empty $image.digest))) -}}
{{- end -}}
{{- end -}}

{{/* The metadata of what belongs to no namespace: dict "ctx" "component" "name". */}}
{{- define "bobrai.clusterMetadata" -}}
name: {{ .name }}
labels:
  {{- include "bobrai.labels" . | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .ctx.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
Two maps as one YAML text, the second winning also where it says false, 0 or null, which `merge` takes for unsaid.
dict "under" (map) "over" (map)
*/}}
{{- define "bobrai.merged" -}}
{{- $found := deepCopy .under -}}
{{- range $key, $value := .over -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $found $key)) -}}
{{- $_ := set $found $key (include "bobrai.merged" (dict "under" (get $found $key) "over" $value) | fromYaml) -}}
{{- else -}}
{{- $_ := set $found $key $value -}}
{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}
