{{- /* What the cook's objects are called: that of services too, and short enough for the names of pods. */ -}}
{{- define "soupctl.name" -}}
{{- $name := .Values.name | default .Release.Name -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$" $name) -}}
{{- fail (printf "name %q: a letter, then letters, digits and -, at most 40; give another one with --set name=NAME" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "soupctl.account" -}}
{{- .Values.serviceAccount.name | default (include "soupctl.name" .) -}}
{{- end -}}

{{- define "soupctl.workers" -}}
{{- $workers := .Values.workers | int -}}
{{- if lt $workers 1 -}}
{{- fail (printf "workers: %v is not a number of workers" .Values.workers) -}}
{{- end -}}
{{- $workers -}}
{{- end -}}

{{- /* The text of the cook file, where it is one that pods can cook. soupctl k8s render checks more. */ -}}
{{- define "soupctl.cook" -}}
{{- $text := required "cook: what is cooked? --set-file cook=cook.yaml" .Values.cook -}}
{{- $cook := fromYaml $text -}}
{{- if hasKey $cook "Error" -}}
{{- fail (printf "cook: is no YAML: %s" $cook.Error) -}}
{{- end -}}
{{- range $key := list "coordinator" "listen" -}}
{{- if hasKey $cook $key -}}
{{- fail (printf "cook: %s says who works, which the pods of this cook do: leave it out" $key) -}}
{{- end -}}
{{- end -}}
{{- if hasKey $cook "min-workers" -}}
{{- if ne (index $cook "min-workers" | int) (.Values.workers | int) -}}
{{- fail (printf "cook: min-workers is %v, but there are to be %v workers" (index $cook "min-workers") .Values.workers) -}}
{{- end -}}
{{- end -}}
{{- $text -}}
{{- end -}}
