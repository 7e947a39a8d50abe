{{/* What the server and its replicas have in common. All take dict "ctx" . */}}

{{- define "bobrai.postgresql.mounts" -}}
- {name: data, mountPath: /var/lib/postgresql}
- {name: config, mountPath: /etc/bobrai/postgresql, readOnly: true}
- {name: config, mountPath: /etc/passwd, subPath: passwd, readOnly: true}
- {name: run, mountPath: /var/run/postgresql}
- {name: secrets, mountPath: /run/bobrai}
- {name: shm, mountPath: /dev/shm}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "bobrai.postgresql.volumes" -}}
- name: config
  configMap:
    name: {{ include "bobrai.componentName" (dict "ctx" .ctx "component" "postgresql") }}
- name: run
  emptyDir: {sizeLimit: 16Mi}
- name: secrets
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
# parallel queries share memory here; a runtime's own /dev/shm has 64 MiB
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .ctx.Values.postgresql.sharedMemory }}}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- end -}}

{{- define "bobrai.postgresql.env" -}}
- name: PGDATA
  value: /var/lib/postgresql/18/docker
{{- end -}}

{{/* The server's container: dict "ctx" . "configuration" (path of postgresql.conf) */}}
{{- define "bobrai.postgresql.container" -}}
- name: postgresql
  image: {{ include "bobrai.image" (dict "ctx" .ctx "name" "postgresql") }}
  imagePullPolicy: {{ .ctx.Values.images.pullPolicy }}
  command: [postgres, -c, config_file={{ .configuration }}]
  env:
    {{- include "bobrai.postgresql.env" . | nindent 4 }}
  ports:
    - {name: postgresql, containerPort: 5432}
  # over TCP, where nothing listens before the server is ready; often, for all wait for it; long, for recovery must not be killed
  startupProbe:
    exec: {command: [pg_isready, --quiet, --host=127.0.0.1, --username=postgres]}
    periodSeconds: 1
    timeoutSeconds: 5
    failureThreshold: {{ max 1 (int .ctx.Values.postgresql.startupSeconds) }}
  # no liveness probe: a restart cures no slow disk, and recovery would start over
  readinessProbe:
    exec: {command: [pg_isready, --quiet, --host=127.0.0.1, --username=postgres]}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 3
  lifecycle:
    preStop:
      exec: {command: [bash, /etc/bobrai/postgresql/stop.sh]}
  resources:
    {{- toYaml .ctx.Values.postgresql.resources | nindent 4 }}
  securityContext:
    {{- include "bobrai.containerSecurityContext" . | nindent 4 }}
  volumeMounts:
    {{- include "bobrai.postgresql.mounts" . | nindent 4 }}
{{- end -}}
