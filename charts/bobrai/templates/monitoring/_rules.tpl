{{/*
The groups of alerts/*.yaml as one YAML text {groups: [...]}, changed by what `monitoring.rules` says. The files are read
as they are: the {{ "{{ }}" }} in them belong to Prometheus.
*/}}
{{- define "bobrai.rules" -}}
{{- $rules := .Values.monitoring.rules -}}
{{- $groups := list -}}
{{- $seen := dict -}}
{{- range $path, $bytes := .Files.Glob "alerts/*.yaml" -}}
{{- range (toString $bytes | replace "https://github.com/bobrai/bobrai/blob/main/docs/runbooks/" $rules.runbookBaseUrl | fromYaml).groups -}}
{{- $kept := list -}}
{{- range .rules -}}
{{- if .record -}}
{{- $kept = append $kept . -}}
{{- else -}}
{{- $exact := printf "%s/%s" .alert .labels.severity -}}
{{- $_ := set $seen .alert true -}}
{{- $_ := set $seen $exact true -}}
{{- if not (or (has .alert $rules.disabled) (has $exact $rules.disabled)) -}}
{{- $rule := include "bobrai.merged" (dict "under" . "over" (get $rules.overrides .alert | default dict)) | fromYaml -}}
{{- $rule = include "bobrai.merged" (dict "under" $rule "over" (get $rules.overrides $exact | default dict)) | fromYaml -}}
{{- $kept = append $kept $rule -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $kept -}}
{{- $groups = append $groups (set . "rules" $kept) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range concat $rules.disabled (keys $rules.overrides) -}}
{{- if not (hasKey $seen .) -}}
{{- fail (printf "\nmonitoring.rules: there is no alert %s; docs/monitoring.md lists them. Name one, or one and its severity: BobraiBackupOld/warning" .) -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "groups" (concat $groups $rules.extraGroups)) -}}
{{- end -}}
