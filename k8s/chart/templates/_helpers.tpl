{{- define "divvy.selector" -}}
app.kubernetes.io/name: divvy
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of what has no image. */}}
{{- define "divvy.unversioned" -}}
{{ include "divvy.selector" . }}
app.kubernetes.io/part-of: divvy
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
{{- end }}

{{/* The version label follows the tag of the component's image. */}}
{{- define "divvy.labels" -}}
{{- $image := (get .context.Values .component).image -}}
{{ include "divvy.unversioned" . }}
app.kubernetes.io/version: {{ $image.tag | default .context.Chart.AppVersion | quote }}
{{- end }}

{{- define "divvy.image" -}}
{{ .image.repository }}:{{ .image.tag | default .context.Chart.AppVersion }}
{{- end }}

{{- define "divvy.env" -}}
{{- $env := deepCopy (get .context.Values .component).env -}}
{{- if and (eq .component "coordinator") (eq .context.Values.autoscaling.kind "keda") -}}
{{- /* A request that finds no worker waits for the first one. */ -}}
{{- $env = merge $env (dict "DIVVY_NO_WORKER_TIMEOUT_MS" "120000") -}}
{{- end -}}
{{- range $name, $value := $env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "divvy.drainSeconds" -}}
{{ eq .Values.autoscaling.kind "none" | ternary .Values.worker.drainSeconds .Values.autoscaling.drainSeconds }}
{{- end }}

{{/* A file of the manifests beside the chart as an object of this release. */}}
{{- define "divvy.adopted" -}}
{{- .text
  | replace "app.kubernetes.io/managed-by: kustomize" (printf "app.kubernetes.io/managed-by: %s" .context.Release.Service)
  | replace "app.kubernetes.io/instance: divvy" (printf "app.kubernetes.io/instance: %s" .context.Release.Name) -}}
{{- end }}
