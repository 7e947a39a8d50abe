{{/* What validate-auth.yaml asks of a grant and of an address, in the words of the service (settings/grants.py, oidc.py). */}}

{{/* What is wrong with a rate, or nothing: its text, or a number, which is what YAML makes of a rate without a unit */}}
{{- define "bobrai.rate.fault" -}}
{{- $text := include "bobrai.text" . -}}
{{- if not (regexMatch "^\\s*0*([1-9][0-9]{0,5}|1000000)\\s*/\\s*[smhd]\\s*$" $text) -}}
{{ quote $text }} is no rate: write 1 to 1000000 per s, m, h or d, such as 100/s
{{- end -}}
{{- end -}}

{{/* What is wrong with what a key or a role may do, or nothing: dict "grant" "ownTasks" (how that is called there) */}}
{{- define "bobrai.grant.fault" -}}
{{- $grant := .grant -}}
{{- $faults := list -}}
{{- if and (has "admin" $grant.scopes) (or $grant.queues $grant.types (get $grant .ownTasks)) -}}
{{- $faults = append $faults (printf "the scope admin cannot be narrowed: leave queues, types and %s out, or name other scopes" .ownTasks) -}}
{{- end -}}
{{- range $field := list "queues" "types" -}}
{{- range $pattern := (get $grant $field | default list) -}}
{{- if or (not $pattern) (gt (len $pattern) 100) (not (regexMatch "^[A-Za-z0-9._-]*(\\*[A-Za-z0-9._-]*){0,4}$" $pattern)) -}}
{{- $faults = append $faults (printf "%s: %q is no pattern: write 1 to 100 letters, digits, '.', '_' and '-', and up to four '*', each for any characters" $field $pattern) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not (kindIs "invalid" $grant.rate) -}}
{{- with include "bobrai.rate.fault" $grant.rate -}}{{- $faults = append $faults (printf "rate: %s" .) -}}{{- end -}}
{{- else if not (kindIs "invalid" $grant.burst) -}}
{{- $faults = append $faults "burst needs a rate: set rate too, such as 100/s, or leave burst out" -}}
{{- end -}}
{{- join "; " $faults -}}
{{- end -}}

{{/* What is wrong with an address that keys of tokens are read from, or nothing: dict "url" "allowHttp" */}}
{{- define "bobrai.url.fault" -}}
{{- $site := regexFind "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#]+" .url -}}
{{- $port := regexFind ":[0-9]+$" $site | trimPrefix ":" | default "0" -}}
{{- if or (not $site) (not (regexMatch "^[!-~]+$" .url)) -}}
{{ quote .url }} must be a URL that begins with https://, without spaces and in ASCII
{{- else if or (contains "@" $site) (contains "#" .url) -}}
{{ quote .url }} must be a URL without user, password and fragment
{{- else if or (gt (float64 $port) 65535.0) (not (regexMatch "//([^\\[\\]:]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]*)?$" $site)) -}}
{{ quote .url }} is no URL: write https://, a host, and perhaps a port up to 65535 and a path
{{- else if and (not .allowHttp) (regexMatch "^[^:]{4}://" .url) (not (regexMatch "(?i)//(localhost|127[.][0-9.]+|\\[::1\\])(:[0-9]*)?$" $site)) -}}
{{ quote .url }} must begin with https://: whoever can change keys on their way could be anybody; allow_http: true allows it
{{- end -}}
{{- end -}}

{{/* What is wrong with an issuer by itself, or nothing, as far as the schema cannot say it: an item of auth.oidc */}}
{{- define "bobrai.issuer.fault" -}}
{{- $faults := list -}}
{{- range $field := list "issuer" "jwks_url" -}}
{{- with get $ $field -}}
{{- with include "bobrai.url.fault" (dict "url" . "allowHttp" $.allow_http) -}}{{- $faults = append $faults (printf "%s: %s" $field .) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "[?][^#]" .issuer -}}
{{- $faults = append $faults "issuer: leave the query (what stands behind ?) out" -}}
{{- end -}}
{{- if not (or .roles .default) -}}
{{- $faults = append $faults "every token would be refused: set roles, such as [{value: staff, scopes: [tasks:read]}], or default, such as {scopes: [tasks:read]}" -}}
{{- end -}}
{{- if lt (float64 (.keep_keys_seconds | default 3600)) (addf (.refresh_seconds | default 300) (.timeout_seconds | default 5)) -}}
{{- $faults = append $faults "keep_keys_seconds must be at least refresh_seconds and timeout_seconds together, or keys would be forgotten between two looks" -}}
{{- end -}}
{{- $values := list -}}
{{- range $number, $role := .roles -}}
{{- if has $role.value $values -}}{{- $faults = append $faults (printf "roles: %q stands there twice, and the first that matches counts: take one away" $role.value) -}}{{- end -}}
{{- $values = append $values $role.value -}}
{{- with include "bobrai.grant.fault" (dict "grant" $role "ownTasks" "own_tasks") -}}{{- $faults = append $faults (printf "roles[%d]: %s" $number .) -}}{{- end -}}
{{- end -}}
{{- with .default -}}
{{- with include "bobrai.grant.fault" (dict "grant" . "ownTasks" "own_tasks") -}}{{- $faults = append $faults (printf "default: %s" .) -}}{{- end -}}
{{- end -}}
{{- join "; " $faults -}}
{{- end -}}
