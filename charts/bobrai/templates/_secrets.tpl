{{/*
Credentials: an existing Secret, else a value, else generated once. What was generated is found again in the cluster, so
that an upgrade keeps it; where the cluster cannot be asked (GitOps, `helm template`), name existing Secrets.
*/}}

{{/* The name of the Secret in use: dict "ctx" . "name" (a key of `secrets`) */}}
{{- define "bobrai.secretName" -}}
{{- $secret := get .ctx.Values.secrets .name -}}
{{- $secret.existingSecret | default (printf "%s-%s" (include "bobrai.fullname" .ctx) (.name | kebabcase)) -}}
{{- end -}}

{{/* One key of a Secret that this chart makes: dict "ctx" . "name" "postgresql" "key" "password" "value" "" -> base64; "made": what is kept when there is nothing yet */}}
{{- define "bobrai.secretValue" -}}
{{- $found := lookup "v1" "Secret" .ctx.Release.Namespace (include "bobrai.secretName" .) -}}
{{- $kept := dig "data" .key "" $found -}}
{{- if .value -}}
{{- .value | b64enc -}}
{{- else if $kept -}}
{{- $kept -}}
{{- else -}}
{{- .made | default (randAlphaNum 32) | b64enc -}}
{{- end -}}
{{- end -}}
