{{- define "longline.labels" -}}
app.kubernetes.io/name: longline
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "longline.redis" -}}
{{- if or .Values.broker .Values.brokerSecret.name }}yes{{ end -}}
{{- end }}
{{- define "longline.pod" -}}
metadata:
  labels: {{- include "longline.labels" . | nindent 4 }}
  annotations:
    checksum/config: {{ toYaml .Values.config | sha256sum }}
spec:
  # One drain, and a little.
  terminationGracePeriodSeconds: {{ add .Values.drainSeconds 10 }}
  automountServiceAccountToken: false
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: longline
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve, --config=/etc/longline/config.yaml, --listen=0.0.0.0:8080, "--admin-listen=0.0.0.0:{{ .Values.metrics.port }}", "--drain={{ .Values.drainSeconds }}s"]
      env:
        - {name: LONGLINE_JWT_SECRET_FILE, value: /run/secrets/longline/jwt}
        - {name: LONGLINE_SECRET_KEY_FILE, value: /run/secrets/longline/secret}
        {{- if .Values.brokerSecret.name }}
        - name: LONGLINE_BROKER
          valueFrom: {secretKeyRef: {name: {{ .Values.brokerSecret.name | quote }}, key: {{ .Values.brokerSecret.key | quote }}}}
        {{- else }}
        - {name: LONGLINE_BROKER, value: {{ .Values.broker | default "embedded:/data" | quote }}}
        {{- end }}
      ports:
        - {name: http, containerPort: 8080}
        - {name: metrics, containerPort: {{ .Values.metrics.port }}}
      startupProbe: {httpGet: {path: /livez, port: http}, periodSeconds: 2, failureThreshold: 60}
      livenessProbe: {httpGet: {path: /livez, port: http}, periodSeconds: 10, failureThreshold: 3}
      readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 5, failureThreshold: 2}
      lifecycle:
        # Endpoints forget the pod before it stops taking connections.
        preStop: {sleep: {seconds: 3}}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      resources: {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/longline, readOnly: true}
        - {name: secrets, mountPath: /run/secrets/longline, readOnly: true}
        {{- if not (include "longline.redis" .) }}
        - {name: data, mountPath: /data}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ .Release.Name }}-longline}
    - name: secrets
      secret: {secretName: {{ .Values.secrets.name | quote }}, defaultMode: 0440}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
