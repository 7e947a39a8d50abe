{{/*
The environment of a bobrAI container as a list without doubles, later ones winning: what every process needs, what this
one needs ("own": YAML of a map name -> {value} or {valueFrom}), the values `config` and `extraEnv`, then the component's.
dict "ctx" . "own" (list of YAML texts) "values" (the component's values)
*/}}
{{- define "bobrai.env" -}}
{{- $found := dict "BOBRAI_LOG_FORMAT" (dict "value" "json") -}}
{{- range .own -}}
{{- range $name, $entry := (. | fromYaml) -}}{{- $_ := set $found $name $entry -}}{{- end -}}
{{- end -}}
{{- range list .ctx.Values (.values | default dict) -}}
{{- range $name, $value := (.config | default dict) -}}{{- $_ := set $found $name (dict "value" (include "bobrai.text" $value)) -}}{{- end -}}
{{- range (.extraEnv | default list) -}}{{- $_ := set $found .name (omit . "name") -}}{{- end -}}
{{- end -}}
{{- range $name := keys $found | sortAlpha }}
- name: {{ $name }}
  {{- toYaml (get $found $name) | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A value as text: Helm reads every number of a values file as a float and would write a large one with an exponent. */}}
{{- define "bobrai.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) -}}{{- int64 . -}}{{- else -}}{{- . -}}{{- end -}}
{{- end -}}

{{/* An init container that waits until the schema is there: dict "ctx" . ; it never migrates. */}}
{{- define "bobrai.waitForSchema" -}}
- name: wait-for-schema
  image: {{ include "bobrai.image" (dict "ctx" .ctx "name" "api") }}
  imagePullPolicy: {{ .ctx.Values.images.pullPolicy }}
  args: [migrate, --wait]
  env:
    {{- include "bobrai.env" (dict "ctx" .ctx "own" (list (include "bobrai.database.env" .))) | nindent 4 }}
  resources:
    {{- toYaml .ctx.Values.migrations.resources | nindent 4 }}
  securityContext:
    {{- include "bobrai.containerSecurityContext" . | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
{{- end -}}

{{/* A container that migrates, past the pooler: dict "ctx" . ; any number may run at once. */}}
{{- define "bobrai.migrate" -}}
- name: migrate
  image: {{ include "bobrai.image" (dict "ctx" .ctx "name" "api") }}
  imagePullPolicy: {{ .ctx.Values.images.pullPolicy }}
  args: [migrate]
  env:
    {{- include "bobrai.env" (dict "ctx" .ctx "own" (list (include "bobrai.database.env" (dict "ctx" .ctx "direct" true)))) | nindent 4 }}
  resources:
    {{- toYaml .ctx.Values.migrations.resources | nindent 4 }}
  securityContext:
    {{- include "bobrai.containerSecurityContext" . | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
{{- end -}}
