{{/* What validate-settings.yaml asks of a variable of the service. */}}

{{/* Where to look for a name that is none: dict "name" "settings" (a map by name) */}}
{{- define "bobrai.settings.near" -}}
{{- $alike := list -}}
{{- $group := list -}}
{{- $asked := upper .name -}}
{{- range $name := keys .settings | sortAlpha -}}
{{- if eq (replace "_" "" $name) (replace "_" "" $asked) -}}{{- $alike = append $alike $name -}}{{- end -}}
{{- if hasPrefix (regexFind "^BOBRAI_[^_]*" $asked) $name -}}{{- $group = append $group $name -}}{{- end -}}
{{- end -}}
{{- if $alike -}}
Did you mean {{ first $alike }}?
{{- else -}}
docs/settings.md lists all
{{- if $group }}; those that begin alike are {{ join ", " $group }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* What is wrong with a value, or nothing: dict "rule" (a JSON schema) "text" */}}
{{- define "bobrai.settings.fault" -}}
{{- $rule := .rule -}}
{{- $type := $rule.type | default "" -}}
{{- if contains "$(" .text -}}
{{- /* Kubernetes puts the value of another variable there */ -}}
{{- else if $rule.enum -}}
{{- if not (has .text $rule.enum) -}}must be one of {{ join ", " $rule.enum }}, and not {{ quote .text }}{{- end -}}
{{- else if $rule.pattern -}}
{{- if not (regexMatch $rule.pattern .text) -}}must match {{ $rule.pattern }}, and {{ quote .text }} does not{{- end -}}
{{- else if eq $type "boolean" -}}
{{- if not (has (lower .text) (list "true" "false" "1" "0" "on" "off" "yes" "no" "t" "f" "y" "n")) -}}must be true or false, and not {{ quote .text }}{{- end -}}
{{- else if has $type (list "integer" "number") -}}
{{- $digits := .text | trim | replace "_" "" -}}
{{- $number := float64 $digits -}}
{{- if not (regexMatch (ternary "^[+-]?[0-9]+([.]0*)?$" "^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$" (eq $type "integer")) $digits) -}}must be {{ ternary "a whole number" "a number" (eq $type "integer") }}, and not {{ quote .text }}
{{- else if and (hasKey $rule "minimum") (lt $number $rule.minimum) -}}must be at least {{ toJson $rule.minimum }}, and not {{ quote .text }}
{{- else if and (hasKey $rule "exclusiveMinimum") (le $number $rule.exclusiveMinimum) -}}must be more than {{ toJson $rule.exclusiveMinimum }}, and not {{ quote .text }}
{{- else if and (hasKey $rule "maximum") (gt $number $rule.maximum) -}}must be at most {{ toJson $rule.maximum }}, and not {{ quote .text }}
{{- end -}}
{{- end -}}
{{- end -}}
