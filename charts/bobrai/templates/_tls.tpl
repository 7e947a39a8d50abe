{{/*
TLS: which Secrets are mounted where. Files are readable by the group of the pod's processes alone.
*/}}

{{/* Environment as a map: dict "name" "database" or "rabbitmq" "external" (the values with caSecret and clientSecret) */}}
{{- define "bobrai.tls.env" -}}
BOBRAI_{{ upper .name }}_TLS_CA:
  value: /etc/bobrai/certificates/{{ .name }}/ca.crt
{{- if .external.clientSecret }}
BOBRAI_{{ upper .name }}_TLS_CERTIFICATE:
  value: /etc/bobrai/certificates/{{ .name }}/tls.crt
BOBRAI_{{ upper .name }}_TLS_KEY:
  value: /etc/bobrai/certificates/{{ .name }}/tls.key
{{- end }}
{{- end -}}

{{/* Mounts of a container: dict "ctx" . "rabbitmq" true for those that speak to it too */}}
{{- define "bobrai.tls.mounts" -}}
{{- if include "bobrai.tls.database" .ctx }}
- {name: database-tls, mountPath: /etc/bobrai/certificates/database, readOnly: true}
{{- end }}
{{- if and .rabbitmq (include "bobrai.tls.rabbitmq" .ctx) }}
- {name: rabbitmq-tls, mountPath: /etc/bobrai/certificates/rabbitmq, readOnly: true}
{{- end }}
{{- end -}}

{{/* Volumes of a pod: the same dict */}}
{{- define "bobrai.tls.volumes" -}}
{{- if include "bobrai.tls.database" .ctx }}
{{ include "bobrai.tls.volume" (dict "name" "database-tls" "external" .ctx.Values.postgresql.external) }}
{{- end }}
{{- if and .rabbitmq (include "bobrai.tls.rabbitmq" .ctx) }}
{{ include "bobrai.tls.volume" (dict "name" "rabbitmq-tls" "external" .ctx.Values.rabbitmq.external) }}
{{- end }}
{{- end -}}

{{/* ca.crt, and with a client's certificate tls.crt and tls.key: dict "name" "external" */}}
{{- define "bobrai.tls.volume" -}}
- name: {{ .name }}
  projected:
    defaultMode: 288 # 0440
    sources:
      - secret:
          name: {{ .external.caSecret }}
          items:
            - {key: {{ .external.caKey }}, path: ca.crt}
      {{- with .external.clientSecret }}
      - secret:
          name: {{ . }}
          items:
            - {key: tls.crt, path: tls.crt}
            - {key: tls.key, path: tls.key}
      {{- end }}
{{- end -}}

{{/* http or https: how the API is spoken to. */}}
{{- define "bobrai.api.scheme" -}}
{{- if .Values.api.tls.secretName -}}https{{- else -}}http{{- end -}}
{{- end -}}

{{/* Environment of the API for its own port, as a map. */}}
{{- define "bobrai.api.tls.env" -}}
{{- if .Values.api.tls.secretName }}
BOBRAI_API_TLS_CERTIFICATE:
  value: /etc/bobrai/certificates/api/tls.crt
BOBRAI_API_TLS_KEY:
  value: /etc/bobrai/certificates/api/tls.key
{{- if .Values.api.tls.clientCaSecret }}
BOBRAI_API_TLS_CLIENT_CA:
  value: /etc/bobrai/certificates/api/client-ca.crt
BOBRAI_API_TLS_CLIENT_CERTIFICATES:
  value: {{ .Values.api.tls.clientCertificates }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "bobrai.api.tls.volume" -}}
- name: tls
  projected:
    defaultMode: 288 # 0440
    sources:
      - secret:
          name: {{ .Values.api.tls.secretName }}
          items:
            - {key: tls.crt, path: tls.crt}
            - {key: tls.key, path: tls.key}
      {{- with .Values.api.tls.clientCaSecret }}
      - secret:
          name: {{ . }}
          items:
            - {key: ca.crt, path: client-ca.crt}
      {{- end }}
{{- end -}}
