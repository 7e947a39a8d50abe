{{/*
The only place that knows how PostgreSQL and RabbitMQ are had: bundled, by an operator, or external. Workloads include
"bobrai.database.env" and "bobrai.rabbitmq.env" and never look at the mode.
*/}}

{{/* host, port, directHost, directPort, database, options, secret, userKey, passwordKey */}}
{{- define "bobrai.database" -}}
{{- $full := include "bobrai.fullname" . -}}
{{- $domain := printf "%s.svc" .Release.Namespace -}}
{{- $postgresql := .Values.postgresql -}}
{{- if eq $postgresql.mode "bundled" }}
directHost: {{ $full }}-postgresql.{{ $domain }}
directPort: 5432
database: bobrai
options: ""
secret: {{ include "bobrai.secretName" (dict "ctx" . "name" "postgresql") }}
userKey: username
passwordKey: password
{{- else if eq $postgresql.mode "operator" }}
host: {{ $full }}-pooler.{{ $domain }}
port: 5432
directHost: {{ $full }}-postgresql-rw.{{ $domain }}
directPort: 5432
database: bobrai
options: "?sslmode=require"
secret: {{ $full }}-postgresql-app
userKey: username
passwordKey: password
{{- else }}
{{- $external := $postgresql.external }}
host: {{ $external.poolerHost | default $external.host | quote }}
port: {{ $external.poolerPort | default $external.port }}
directHost: {{ $external.host | quote }}
directPort: {{ $external.port }}
database: {{ $external.database }}
{{- $mode := ternary "verify-full" $external.sslMode (not (empty $external.caSecret)) }}
options: {{ ternary (printf "?sslmode=%s" $mode) "" (not (empty $mode)) | quote }}
secret: {{ include "bobrai.secretName" (dict "ctx" . "name" "postgresql") }}
userKey: {{ $external.userKey }}
passwordKey: {{ $external.passwordKey }}
{{- end }}
{{- if include "bobrai.pgbouncer.enabled" . }}
host: {{ $full }}-pgbouncer.{{ $domain }}
port: 6432
options: {{ ternary "?sslmode=disable" "" (not (empty (include "bobrai.tls.database" .))) | quote }}
{{- $mode := ternary "verify-full" $postgresql.external.sslMode (not (empty (include "bobrai.tls.database" .))) }}
directOptions: {{ ternary (printf "?sslmode=%s" $mode) "" (and (eq $postgresql.mode "external") (not (empty $mode))) | quote }}
{{- end }}
{{- end -}}

{{/* Non-empty when this chart runs PgBouncer itself: always before the bundled database, by value before an external one. */}}
{{- define "bobrai.pgbouncer.enabled" -}}
{{- if and .Values.pgbouncer.enabled (ne .Values.postgresql.mode "operator") -}}
{{- if or (eq .Values.postgresql.mode "bundled") (empty .Values.postgresql.external.poolerHost) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Environment of whatever uses the database, as a map: dict "ctx" . and "direct" true for what must bypass the pooler. */}}
{{- define "bobrai.database.env" -}}
{{- $database := include "bobrai.database" .ctx | fromYaml -}}
{{- $direct := printf "postgresql://%s:%v/%s%s" $database.directHost $database.directPort $database.database ($database.directOptions | default $database.options) -}}
{{- $pooled := $direct -}}
{{- if $database.host -}}
{{- $pooled = printf "postgresql://%s:%v/%s%s" $database.host $database.port $database.database $database.options -}}
{{- end -}}
BOBRAI_DATABASE_URL:
  value: {{ $pooled | quote }}
{{- if .direct }}
BOBRAI_DATABASE_DIRECT_URL:
  value: {{ $direct | quote }}
{{- end }}
{{- if include "bobrai.tls.database" .ctx }}
{{ include "bobrai.tls.env" (dict "name" "database" "external" .ctx.Values.postgresql.external) }}
{{- else if contains "sslmode=verify" (print $database.options $database.directOptions) }}
# the driver looks for them in a home directory
PGSSLROOTCERT:
  value: /etc/ssl/certs/ca-certificates.crt
{{- end }}
BOBRAI_DATABASE_USER:
  valueFrom:
    secretKeyRef: {name: {{ $database.secret }}, key: {{ $database.userKey }}}
BOBRAI_DATABASE_PASSWORD:
  valueFrom:
    secretKeyRef: {name: {{ $database.secret }}, key: {{ $database.passwordKey }}}
{{- end -}}

{{/* hosts (comma-separated host:port), vhost, scheme, secret, userKey, passwordKey */}}
{{- define "bobrai.rabbitmq" -}}
{{- $full := include "bobrai.fullname" . -}}
{{- $rabbitmq := .Values.rabbitmq -}}
vhost: {{ $rabbitmq.vhost | quote }}
{{- if eq $rabbitmq.mode "external" }}
scheme: {{ ternary "amqps" "amqp" $rabbitmq.external.tls }}
hosts: {{ toJson $rabbitmq.external.hosts }}
secret: {{ include "bobrai.secretName" (dict "ctx" . "name" "rabbitmq") }}
userKey: {{ $rabbitmq.external.userKey }}
passwordKey: {{ $rabbitmq.external.passwordKey }}
{{- else }}
scheme: amqp
hosts: [{{ printf "%s-rabbitmq.%s.svc:5672" $full .Release.Namespace }}]
secret: {{ if eq $rabbitmq.mode "operator" }}{{ $full }}-rabbitmq-default-user{{ else }}{{ include "bobrai.secretName" (dict "ctx" . "name" "rabbitmq") }}{{ end }}
userKey: username
passwordKey: password
{{- end }}
{{- end -}}

{{/* Non-empty where an authority of its own vouches for the server. */}}
{{- define "bobrai.tls.database" -}}
{{- if and (eq .Values.postgresql.mode "external") .Values.postgresql.external.caSecret -}}true{{- end -}}
{{- end -}}
{{- define "bobrai.tls.rabbitmq" -}}
{{- if and (eq .Values.rabbitmq.mode "external") .Values.rabbitmq.external.caSecret -}}true{{- end -}}
{{- end -}}
