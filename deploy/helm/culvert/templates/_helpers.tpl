{{/* The settings of the platform; an unknown one was refused by the schema. */}}
{{- define "culvert.platform" -}}
{{- $name := .Values.platform | default .Values.global.platform -}}
{{- if $name -}}
{{- $file := .Files.Get (printf "files/platform-%s.yaml" $name) -}}
{{- if not $file -}}
{{- fail (printf "platform %q is not known; files/ has one for each that is" $name) -}}
{{- end -}}
{{- $file -}}
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{- define "culvert.name" -}}
{{- .Values.resourceName | default "ztunnel" -}}
{{- end -}}

{{- define "culvert.istiod" -}}
istiod{{ with .Values.revision }}-{{ . }}{{ end }}.{{ .Values.istioNamespace }}.svc:15012
{{- end -}}

{{- define "culvert.image" -}}
{{- $tag := .Values.tag | default .Chart.AppVersion -}}
{{- if contains "/" .Values.image -}}
{{ .Values.image }}
{{- else if .Values.hub -}}
{{ .Values.hub }}/{{ .Values.image }}:{{ $tag }}
{{- else -}}
{{ .Values.image }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{- define "culvert.labels" -}}
app.kubernetes.io/name: ztunnel
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: istio
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
