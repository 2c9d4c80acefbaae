{{- define "divvy.selector" -}}
app.kubernetes.io/name: divvy
app.kubernetes.io/instance: {{ .context.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of what has no image. */}}
{{- define "divvy.unversioned" -}}
{{ include "divvy.selector" . }}
app.kubernetes.io/part-of: divvy
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
{{- end }}

{{/* The values of a component are under its name in camel case. */}}
{{- define "divvy.key" -}}
{{- replace "python-worker" "pythonWorker" . -}}
{{- end }}

{{/* The version label follows the tag of the component's image; the front's is the coordinator's. */}}
{{- define "divvy.labels" -}}
{{- $image := (get .context.Values (include "divvy.key" .component)).image | default .context.Values.coordinator.image -}}
{{ include "divvy.unversioned" . }}
app.kubernetes.io/version: {{ $image.tag | default .context.Chart.AppVersion | quote }}
{{- end }}

{{- define "divvy.image" -}}
{{ .image.repository }}:{{ .image.tag | default .context.Chart.AppVersion }}{{ with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "divvy.env" -}}
{{- $own := get .context.Values (include "divvy.key" .component) -}}
{{- $env := deepCopy $own.env -}}
{{- if eq .component "coordinator" -}}
{{- /* A start waits for a predecessor that still has the volume, or for a database that is away. */ -}}
{{- $env = merge $env (dict "DIVVY_LOCK_TIMEOUT_MS" (include "divvy.stored" .context | empty | ternary "20000" "240000")) -}}
{{- end -}}
{{- if and (eq .component "coordinator") (eq .context.Values.autoscaling.kind "keda") -}}
{{- /* A request that finds no worker waits for the first one. */ -}}
{{- $env = merge $env (dict "DIVVY_NO_WORKER_TIMEOUT_MS" "120000") -}}
{{- end -}}
{{- if and .context.Values.traces.enabled (has .component (list "coordinator" "worker")) -}}
{{- with .context.Values.traces -}}
{{- $env = merge $env (dict "OTEL_EXPORTER_OTLP_ENDPOINT" .endpoint "OTEL_TRACES_SAMPLER" "parentbased_traceidratio" "OTEL_TRACES_SAMPLER_ARG" (toString .share)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := $env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with $own.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* On which nodes the pods of a component run, and with which Secrets their images are pulled. */}}
{{- define "divvy.placement" -}}
{{- $own := get .context.Values (include "divvy.key" .component) -}}
{{- range $field, $value := dict "imagePullSecrets" .context.Values.imagePullSecrets "nodeSelector" $own.nodeSelector "tolerations" $own.tolerations }}
{{- with $value }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Slots of a worker: what is set, or the whole cores of its CPU limit. */}}
{{- define "divvy.slots" -}}
{{- $cpu := toString .Values.worker.resources.limits.cpu -}}
{{- $cores := hasSuffix "m" $cpu | ternary (div (trimSuffix "m" $cpu | int) 1000) (floor $cpu | int) -}}
{{ .Values.worker.env.DIVVY_SLOTS | default (max 1 $cores) }}
{{- end }}

{{/* Not empty where jobs are in a database instead of on a volume. */}}
{{- define "divvy.stored" -}}
{{- .Values.store.secretName -}}
{{- end }}

{{/* Both sides show certificates, as listeners and as clients. */}}
{{- define "divvy.tlsEnv" -}}
{{- range $name, $file := dict "TLS_CERT" "tls.crt" "TLS_KEY" "tls.key" "TLS_CLIENT_CA" "ca.crt" }}
- name: DIVVY_{{ $name }}
  value: /etc/divvy/tls/{{ $file }}
{{- end }}
{{- include "divvy.tlsClientEnv" . }}
{{- end }}

{{- define "divvy.tlsClientEnv" -}}
{{- range $name, $file := dict "CA_FILE" "ca.crt" "CLIENT_CERT" "tls.crt" "CLIENT_KEY" "tls.key" }}
- name: DIVVY_{{ $name }}
  value: /etc/divvy/tls/{{ $file }}
{{- end }}
- name: DIVVY_TLS_SERVER_NAME
  value: divvy-coordinator-internal
{{- end }}

{{- define "divvy.tlsVolume" -}}
- name: tls
  secret:
    secretName: {{ . | quote }}
    defaultMode: 288
{{- end }}

{{/* The pod's own token for the API server. */}}
{{- define "divvy.apiServerVolume" -}}
- name: api-server
  projected:
    defaultMode: 420
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3600
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
{{- end }}

{{- define "divvy.apiServerMount" -}}
- name: api-server
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}

{{/* The token that proves a worker to the coordinator, and is of no use at the API server. */}}
{{- define "divvy.identityVolume" -}}
- name: identity
  projected:
    defaultMode: 420
    sources:
      - serviceAccountToken:
          audience: divvy
          path: token
          expirationSeconds: 3600
{{- end }}

{{- define "divvy.identityMount" -}}
- name: identity
  mountPath: /var/run/secrets/divvy
  readOnly: true
{{- end }}

{{- define "divvy.identityEnv" -}}
- name: DIVVY_WORKER_TOKEN_FILE
  value: /var/run/secrets/divvy/token
{{- end }}

{{- define "divvy.namespaceEnv" -}}
- name: NAMESPACE
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: metadata.namespace
{{- end }}

{{- define "divvy.drainSeconds" -}}
{{ eq .Values.autoscaling.kind "none" | ternary .Values.worker.drainSeconds .Values.autoscaling.drainSeconds }}
{{- end }}

{{/* How Prometheus reads metrics over https. */}}
{{- define "divvy.scrapeTls" -}}
{{- $secret := .context.Values.tls.metricsSecretName -}}
scheme: https
tlsConfig:
  ca: {secret: {name: {{ $secret | quote }}, key: ca.crt}}
  cert: {secret: {name: {{ $secret | quote }}, key: tls.crt}}
  keySecret: {name: {{ $secret | quote }}, key: tls.key}
  serverName: {{ .name }}
{{- end }}

{{/* A file of the manifests beside the chart as an object of this release. */}}
{{- define "divvy.adopted" -}}
{{- .text
  | replace "app.kubernetes.io/managed-by: kustomize" (printf "app.kubernetes.io/managed-by: %s" .context.Release.Service)
  | replace "app.kubernetes.io/instance: divvy" (printf "app.kubernetes.io/instance: %q" .context.Release.Name)
  | replace "\n  namespace: divvy\n" "\n"
  | replace "\n    namespace: divvy\n" (printf "\n    namespace: %q\n" .context.Release.Namespace) -}}
{{- end }}
