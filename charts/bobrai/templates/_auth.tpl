{{/*
Who may use the API: the keys that this chart makes for itself and those that are declared in `auth.keys`, and how their
Secrets come into the API's pods.
*/}}

{{/* The chart's own keys, by their name in its Secret: what each may do. */}}
{{- define "bobrai.auth.ownKeys" -}}
admin: {scopes: [admin]}
smoke: {scopes: ["tasks:submit", "tasks:read", "tasks:payload"], queues: [default], types: [demo, echo], own_tasks: true}
{{- if eq .Values.autoscaling.provider "keda" }}
scaling: {scopes: ["queues:read"]}
{{- end }}
{{- end -}}

{{/* Environment of the API, as a map. */}}
{{- define "bobrai.auth.env" -}}
{{- $auth := .Values.auth -}}
{{- $keys := list -}}
{{- range $name, $key := include "bobrai.auth.ownKeys" . | fromYaml -}}
{{- $keys = append $keys (merge (dict "name" (printf "chart %s" $name) "file" (printf "/etc/bobrai/keys/chart/%s" $name)) $key) -}}
{{- end -}}
{{- range $number, $key := $auth.keys -}}
{{- $given := dict -}}
{{- range $from, $to := dict "scopes" "scopes" "queues" "queues" "types" "types" "ownTasks" "own_tasks" "rate" "rate" "burst" "burst" "maxWaiting" "max_waiting" -}}
{{- if hasKey $key $from -}}{{- $_ := set $given $to (get $key $from) -}}{{- end -}}
{{- end -}}
{{- $keys = append $keys (merge (dict "name" $key.name "file" (printf "/etc/bobrai/keys/%d/key" $number)) $given) -}}
{{- end -}}
BOBRAI_AUTH_ANONYMOUS_SCOPES:
  value: {{ join "," $auth.anonymous.scopes | default "none" | quote }}
BOBRAI_AUTH_KEYS:
  value: {{ toJson $keys | quote }}
BOBRAI_AUTH_REFUSED_RATE:
  value: {{ $auth.refusedRate | default "none" | quote }}
{{- with $auth.rate }}
BOBRAI_AUTH_RATE:
  value: {{ . | quote }}
{{- end }}
{{- with $auth.anonymous.rate }}
BOBRAI_AUTH_ANONYMOUS_RATE:
  value: {{ . | quote }}
{{- end }}
{{- with $auth.oidc }}
BOBRAI_AUTH_OIDC:
  value: {{ toJson . | quote }}
{{- end }}
{{- end -}}

{{- define "bobrai.auth.mounts" -}}
- {name: keys, mountPath: /etc/bobrai/keys, readOnly: true}
{{- end -}}

{{- define "bobrai.auth.volumes" -}}
- name: keys
  projected:
    defaultMode: 288 # 0440
    sources:
      - secret:
          name: {{ include "bobrai.secretName" (dict "ctx" . "name" "apiKeys") }}
          items:
            {{- range $name := include "bobrai.auth.ownKeys" . | fromYaml | keys | sortAlpha }}
            - {key: {{ $name }}, path: chart/{{ $name }}}
            {{- end }}
      {{- range $number, $key := .Values.auth.keys }}
      - secret:
          name: {{ $key.secretName }}
          items:
            - {key: {{ $key.secretKey | default "key" }}, path: {{ $number }}/key}
      {{- end }}
{{- end -}}
