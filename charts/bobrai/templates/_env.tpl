{{/*
The environment of a bobrAI container, later ones winning: what every process needs and what this one needs ("own": YAML of
a map name -> {value} or {valueFrom}), then `config` and `extraEnv` of the chart, then of the component.
dict "ctx" . "own" (list of YAML texts) "values" (the component's values)
*/}}
{{- define "bobrai.env" -}}
{{- $own := dict "BOBRAI_LOG_FORMAT" (dict "value" "json") -}}
{{- range .own -}}
{{- range $name, $entry := (. | fromYaml) -}}{{- $_ := set $own $name $entry -}}{{- end -}}
{{- end -}}
{{- $found := list -}}
{{- range $name := keys $own | sortAlpha -}}{{- $found = append $found (merge (dict "name" $name) (get $own $name)) -}}{{- end -}}
{{- range list .ctx.Values (.values | default dict) -}}
{{- $config := .config | default dict -}}
{{- range $name := keys $config | sortAlpha -}}
{{- $found = append $found (dict "name" $name "value" (include "bobrai.text" (get $config $name))) -}}
{{- end -}}
{{- $found = concat $found (.extraEnv | default list) -}}
{{- end -}}
{{- include "bobrai.lastOfEach" $found -}}
{{- end -}}

{{/* A list of {name, …} without doubles: each name where it stands last, for a variable may use those before it by $(NAME). */}}
{{- define "bobrai.lastOfEach" -}}
{{- $seen := list -}}
{{- $kept := list -}}
{{- range . | reverse -}}
{{- if not (has .name $seen) -}}
{{- $seen = append $seen .name -}}
{{- $kept = prepend $kept . -}}
{{- end -}}
{{- end -}}
{{- range $kept }}
- name: {{ .name }}
  {{- with omit . "name" }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* A value as text: Helm reads every number of a values file as a float, and a template would write a large one with an exponent. */}}
{{- define "bobrai.text" -}}
{{- if kindIs "string" . -}}{{- . -}}{{- else -}}{{- toJson . -}}{{- end -}}
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
    {{- include "bobrai.tls.mounts" (dict "ctx" .ctx) | nindent 4 }}
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
    {{- include "bobrai.tls.mounts" (dict "ctx" .ctx) | nindent 4 }}
{{- end -}}

{{/* Environment of whatever speaks to RabbitMQ, as a map: dict "ctx" . */}}
{{- define "bobrai.rabbitmq.env" -}}
{{- $rabbitmq := include "bobrai.rabbitmq" .ctx | fromYaml -}}
{{- $urls := list -}}
{{- range $rabbitmq.hosts -}}
{{- $urls = append $urls (printf "%s://%s/%s" $rabbitmq.scheme . (urlquery $rabbitmq.vhost | replace "+" "%20")) -}}
{{- end -}}
BOBRAI_RABBITMQ_URL:
  value: {{ join "," $urls | quote }}
{{- if include "bobrai.tls.rabbitmq" .ctx }}
{{ include "bobrai.tls.env" (dict "name" "rabbitmq" "external" .ctx.Values.rabbitmq.external) }}
{{- end }}
BOBRAI_RABBITMQ_USER:
  valueFrom:
    secretKeyRef: {name: {{ $rabbitmq.secret }}, key: {{ $rabbitmq.userKey }}}
BOBRAI_RABBITMQ_PASSWORD:
  valueFrom:
    secretKeyRef: {name: {{ $rabbitmq.secret }}, key: {{ $rabbitmq.passwordKey }}}
{{- end -}}
