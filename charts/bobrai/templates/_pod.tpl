{{/*
What all pods have in common. A component's own wishes are in its values under `pod`, those for all pods under the
chart's `pod`; lists and scalars of the component win, maps are merged.
*/}}

{{/* dict "ctx" . "component" "api" "values" .Values.api -> the merged map */}}
{{- define "bobrai.podValues" -}}
{{- include "bobrai.merged" (dict "under" .ctx.Values.pod "over" (.values.pod | default dict)) -}}
{{- end -}}

{{/* Labels of a pod: those that select it, and the wished ones. */}}
{{- define "bobrai.podLabels" -}}
{{- $pod := include "bobrai.podValues" . | fromYaml -}}
{{- toYaml (merge (include "bobrai.selectorLabels" . | fromYaml) $pod.labels (dict "app.kubernetes.io/part-of" "bobrai")) -}}
{{- end -}}

{{/*
The pod's fields that do not differ: dict "ctx" "component" "values" "uid" (number) "graceSeconds" (number), and
"token" true for the rare pod that speaks to the Kubernetes API, "account" where another service account is meant, "stateful"
true where pods have no template hash.
*/}}
{{- define "bobrai.podSpec" -}}
serviceAccountName: {{ .account | default (include "bobrai.componentName" .) }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .graceSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .uid }}
  runAsGroup: {{ .gid | default .uid }}
  fsGroup: {{ .gid | default .uid }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{ include "bobrai.placement" . }}
{{- end -}}

{{/* The wished labels and annotations, those that there are, for pods that an operator makes: the merged pod values. */}}
{{- define "bobrai.podMarks" -}}
{{- range $kind := list "labels" "annotations" }}
{{- with get $ $kind }}
{{ $kind }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
Where pods run and what they need there: dict "ctx" "component" "values", and "pods" where other labels select them, for an
operator's pods carry its own.
*/}}
{{- define "bobrai.placement" -}}
{{- $pod := include "bobrai.podValues" . | fromYaml -}}
{{- $selector := .pods | default (include "bobrai.selectorLabels" . | fromYaml) -}}
{{- with .ctx.Values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $pod.affinity }}
affinity:
  {{- toYaml $pod.affinity | nindent 2 }}
{{- else if ne $pod.antiAffinity "none" }}
affinity:
  podAntiAffinity:
    {{- if eq $pod.antiAffinity "hard" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- toYaml $selector | nindent 12 }}
        {{- if not .stateful }}
        # a successor may stand beside whom it replaces, or an upgrade would need a spare node (from Kubernetes 1.31 on)
        matchLabelKeys: [pod-template-hash]
        {{- end }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- toYaml $selector | nindent 14 }}
    {{- end }}
{{- end }}
topologySpreadConstraints:
  {{- if $pod.topologySpreadConstraints }}
  {{- toYaml $pod.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- toYaml $selector | nindent 8 }}
    {{- if not .stateful }}
    matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
{{- end -}}

{{/* The security context of every container, init containers and tests included. */}}
{{- define "bobrai.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}
