{{/* The pod that dumps or restores: dict "ctx" . "script" (backup.sh or restore.sh) "env" (YAML of a list) */}}
{{- define "bobrai.backup.pod" -}}
{{- $part := dict "ctx" .ctx "component" "backup" "values" .ctx.Values.backup -}}
{{- $pod := include "bobrai.podValues" $part | fromYaml -}}
{{- $database := include "bobrai.database" .ctx | fromYaml -}}
metadata:
  labels:
    {{- include "bobrai.podLabels" $part | nindent 4 }}
  {{- with include "bobrai.podAnnotations" (dict "ctx" .ctx "pod" $pod) }}
  annotations:
    {{- . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: Never
  {{- include "bobrai.podSpec" (merge (dict "uid" (int .ctx.Values.postgresql.uid) "graceSeconds" 30 "stateful" true) $part) | nindent 2 }}
  containers:
    - name: {{ trimSuffix ".sh" .script }}
      image: {{ include "bobrai.image" (dict "ctx" .ctx "name" "postgresql") }}
      imagePullPolicy: {{ .ctx.Values.images.pullPolicy }}
      command: [bash, /etc/bobrai/backup/{{ .script }}]
      env:
        # the database itself: a dump is one long transaction with settings of its own
        - {name: PGHOST, value: {{ $database.directHost | quote }}}
        - {name: PGPORT, value: {{ $database.directPort | quote }}}
        - {name: PGDATABASE, value: {{ $database.database | quote }}}
        {{- include "bobrai.secretEnv" (dict "name" "PGUSER" "secret" $database.secret "key" $database.userKey) | nindent 8 }}
        {{- include "bobrai.secretEnv" (dict "name" "PGPASSWORD" "secret" $database.secret "key" $database.passwordKey) | nindent 8 }}
        {{- toYaml .env | nindent 8 }}
      resources:
        {{- toYaml .ctx.Values.backup.resources | nindent 8 }}
      securityContext:
        {{- include "bobrai.containerSecurityContext" .ctx | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/bobrai/backup, readOnly: true}
        - {name: dumps, mountPath: /backup}
        - {name: tmp, mountPath: /tmp}
  volumes:
    - name: config
      configMap:
        name: {{ include "bobrai.componentName" $part }}
    - name: dumps
      persistentVolumeClaim:
        claimName: {{ .ctx.Values.backup.existingClaim | default (include "bobrai.componentName" $part) }}
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
{{- end -}}

{{/* What backup.sh reads beside the database. */}}
{{- define "bobrai.backup.env" -}}
- {name: KEEP_DAYS, value: {{ .Values.backup.keepDays | quote }}}
- {name: WAIT_SECONDS, value: "600"}
{{- end -}}

{{/* The commands that stop whatever a restore must not meet; autoscalers leave alone what was scaled to none, but for KEDA. */}}
{{- define "bobrai.backup.stop" -}}
{{- $kubectl := printf "kubectl --namespace %s" .Release.Namespace -}}
{{- $full := include "bobrai.fullname" . -}}
{{- $parts := list "api" "dispatcher" -}}
{{- $paused := list -}}
{{- range $name := keys .Values.workers.pools | sortAlpha -}}
{{- $parts = append $parts (printf "worker-%s" $name) -}}
{{- $pool := include "bobrai.pool" (dict "ctx" $ "pool" $name) | fromYaml -}}
{{- if and (eq $.Values.autoscaling.provider "keda") $pool.autoscaling.enabled -}}{{- $paused = append $paused (printf "%s-worker-%s" $full $name) -}}{{- end -}}
{{- end -}}
{{- with $paused }}
{{- $kubectl }} annotate --overwrite scaledobject {{ join " " . }} autoscaling.keda.sh/paused=true
{{ end }}
{{- $kubectl }} scale deployment{{ range $parts }} {{ $full }}-{{ . }}{{ end }} --replicas 0
{{ $kubectl }} wait pod --for=delete --timeout=1h --selector 'app.kubernetes.io/instance={{ .Release.Name }},app.kubernetes.io/component in ({{ join "," $parts }})'
{{- end -}}
