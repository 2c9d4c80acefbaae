# Components of k8s/ on a cluster, with a check of each. For scripts/try-cluster.sh, which has `kd`, `ask`, `overlay`, `fail`, the load and
# the functions of events.sh. The operators themselves are not there: only their types are.

authority=$LAB/run/pki/ca

# until_seen SECONDS WHAT COMMAND…
until_seen() {
  local deadline=$((SECONDS + $1)) what="$2, within $1 s"
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || fail "not so: $what"
    sleep 1
  done
}

# from_own_node POD PORT PATH CURL…: asks a pod from its own node, which the policies admit.
from_own_node() {
  local pod=$1 port=$2 path=$3 address node
  shift 3
  read -r address node < <(kd get pod "$pod" --output jsonpath='{.status.podIP} {.spec.nodeName}{"\n"}')
  lab inside "${node#n}" curl --silent --max-time 5 "$@" "http://$address:$port$path"
}

field() { python3 -c "import json, sys; it = json.load(sys.stdin); print($1)"; }

submit() { ask --header 'content-type: application/json' --data "$1" "$url/v1/jobs" | field 'it["id"]'; }

# Workers are accepted by the tokens of their service accounts, and nobody without one.
assert_identity() {
  local status
  # Read to its end: a reader that leaves early would make curl fail.
  from_own_node divvy-coordinator-0 8081 /metrics |
    grep --extended-regexp '^divvy_token_reviews_total\{outcome="accepted"\} [1-9]' >/dev/null || fail 'no token of a worker was reviewed'
  status=$(from_own_node divvy-coordinator-0 8081 /worker/register/stranger --request PUT --output /dev/null --write-out '%{http_code}')
  [ "$status" = 401 ] || fail "a worker without a token gets $status"
  echo 'workers show the tokens of their service accounts'
}

# The pods with a deletion cost above zero.
busy_pods() {
  kd get pods --selector app.kubernetes.io/component=worker --output \
    jsonpath='{range .items[*]}{.metadata.name}={.metadata.annotations.controller\.kubernetes\.io/pod-deletion-cost}{"\n"}{end}' |
    sed --quiet 's/=[1-9][0-9]*$//p' | LC_ALL=C sort
}
two_pods_are_busy() { [ "$(busy_pods | wc --lines)" = 2 ]; }
workers_of() { ask "$url/v1/jobs/$1/tasks" | field '"\n".join(sorted(task["worker"] for task in it["tasks"]))'; }

# Fewer replicas take idle workers away, and leave the busy ones.
assert_deletion_cost() {
  local id before
  id=$(submit '{"kind":"sleep","params":{"seconds":150,"tasks":2,"tasks_per_lease":1}}')
  until_seen 60 'two pods have a deletion cost' two_pods_are_busy
  before=$(workers_of "$id")
  [ "$(busy_pods)" = "$before" ] || fail "busy are $before, and costs have $(busy_pods)"
  kd scale deployment/divvy-worker --replicas=2 >/dev/null
  until_seen 240 'the job of the busy workers succeeds' job_succeeded "$id"
  [ "$(workers_of "$id")" = "$before" ] || fail 'a busy worker was taken away'
  kd scale deployment/divvy-worker --replicas=10 >/dev/null
  grid_is_ready
  echo 'idle workers are taken away first'
}

# patch_as POD OTHER PATCH: the status of a change of the pod OTHER with the token of the worker in POD.
patch_as() {
  local token
  token=$(kd create token divvy-worker --bound-object-kind Pod --bound-object-name "$1")
  ask_status --cacert "$authority.crt" --request PATCH --header "authorization: Bearer $token" \
    --header 'content-type: application/merge-patch+json' --data "$3" "https://172.30.0.1:6443/api/v1/namespaces/divvy/pods/$2"
}
ask_status() { nsenter --net=/run/netns/kc curl --silent --max-time 10 --output "$LAB/answer" --write-out '%{http_code}' "$@"; }

# The right to patch pods is narrowed to the one annotation.
assert_admission() {
  # Below zero: a worker does not set back what it has not written itself, and this must not look like a busy slot.
  local own other patch status cost='{"metadata":{"annotations":{"controller.kubernetes.io/pod-deletion-cost":"-1"}}}'
  read -r own other < <(kd get pods --selector app.kubernetes.io/component=worker --output \
    jsonpath='{.items[0].metadata.name} {.items[1].metadata.name}{"\n"}')
  status=$(patch_as "$own" "$own" "$cost")
  [ "$status" = 200 ] || fail "a worker may not set its deletion cost: $status $(cat "$LAB/answer")"
  status=$(patch_as "$own" "$other" "$cost")
  grep --quiet 'its own pod alone' "$LAB/answer" || fail "another pod's deletion cost: $status $(cat "$LAB/answer")"
  for patch in '{"metadata":{"labels":{"a":"b"}}}' '{"metadata":{"annotations":{"a":"b"}}}' '{"spec":{"activeDeadlineSeconds":9}}'; do
    status=$(patch_as "$own" "$own" "$patch")
    grep --quiet 'a worker may not' "$LAB/answer" || fail "a worker changes $patch: $status $(cat "$LAB/answer")"
  done
  echo 'a worker may change the deletion cost of its own pod and nothing else'
}

span_is_there() { grep --quiet --text --fixed-strings "$1" "$LAB/run/spans"; }
assert_traces() {
  local id span
  id=$(submit '{"kind":"sum-of-primes","params":{"a":1,"b":200000000}}')
  until_seen 60 'a job succeeds' job_succeeded "$id"
  for span in 'POST /v1/jobs' 'job sum-of-primes' 'lease sum-of-primes' 'compute sum-of-primes'; do
    until_seen 60 "the span $span" span_is_there "$span"
  done
  echo 'the collector has the spans of coordinators and workers'
}

in_kafka() { nsenter --net=/run/netns/kc kcat -b 172.30.0.1:9092 "$@"; }
events_have() { in_kafka -C -t divvy.events -o beginning -e -q -f '%k %h\n' | grep "$1" >/dev/null; }
# A job that comes by a topic ends, and its events are published.
assert_kafka() {
  echo '{"kind":"count-primes","params":{"a":1,"b":1000000}}' | in_kafka -P -t divvy.submit.5
  until_seen 90 'the events of a job of Kafka' events_have 'ce_type=divvy.job.succeeded'
  echo 'a job came by Kafka, and its events went there'
}

# A Python worker runs a task that its image names, without API tokens.
assert_python_workers() {
  local id result
  id=$(submit '{"kind":"tasks","params":{"list":[{"divvy":1,"task":"double","args":[21]}]},"requires":{"labels":{"python-task.double":"yes"}}}')
  until_seen 180 'a Python worker runs a task' job_succeeded "$id"
  result=$(ask "$url/v1/jobs/$id/result" | field 'it["tasks"]')
  [ "$result" = '[42]' ] || fail "the task of a Python worker gives $result"
  echo 'Python workers run tasks'
}

# issue SECRET NAME…: a Secret with a new certificate of the cluster's authority for these names.
issue() {
  local secret=$1 directory=$LAB/certificates/$1
  shift
  mkdir -p "$directory"
  openssl req -newkey rsa:2048 -nodes -keyout "$directory/tls.key" -out "$directory/csr" -subj "/CN=$secret" 2>/dev/null
  openssl x509 -req -in "$directory/csr" -CA "$authority.crt" -CAkey "$authority.key" -CAcreateserial -days 30 \
    -out "$directory/tls.crt" -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth' "$*") 2>/dev/null
  kd create secret generic "$secret" --from-file="$directory/tls.crt" --from-file="$directory/tls.key" \
    --from-file=ca.crt="$authority.crt" --dry-run=client --output=yaml | k apply --filename - >/dev/null
}
issue_both() {
  issue divvy-coordinator-tls DNS:divvy-coordinator-internal,IP:172.30.0.100
  issue divvy-worker-tls DNS:divvy-worker
}

# serial ADDRESS:PORT: the number of the certificate that is shown there.
serial() {
  nsenter --net=/run/netns/kc openssl s_client -connect "$1" </dev/null 2>/dev/null | openssl x509 -noout -serial
}
new_certificate_is_shown() {
  [ "$(serial 172.30.0.100:443)" = "$(openssl x509 -noout -serial -in "$LAB/certificates/divvy-coordinator-tls/tls.crt")" ]
}

# Certificates of both Secrets change under load.
certificates_changed() {
  issue_both
  until_seen 240 'the new certificate is shown' new_certificate_is_shown
}

# What an overlay patches: the endpoint and the policy, since the collector is beside the cluster, and the module of the Python workers.
lab_patches() {
  mkdir -p "$LAB/lab-patches"
  cat >"$LAB/lab-patches/kustomization.yaml" <<'K'
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
patches:
  - target: {kind: (StatefulSet|Deployment), name: divvy-(coordinator|worker)}
    patch: |
      - op: test
        path: /spec/template/spec/containers/0/env/0/name
        value: OTEL_EXPORTER_OTLP_ENDPOINT
      - op: replace
        path: /spec/template/spec/containers/0/env/0/value
        value: http://172.30.0.1:4318
      - op: test
        path: /spec/template/spec/containers/0/env/2/name
        value: OTEL_TRACES_SAMPLER_ARG
      - op: replace
        path: /spec/template/spec/containers/0/env/2/value
        value: "1"
  - target: {kind: NetworkPolicy, name: divvy-traces}
    patch: |
      - op: replace
        path: /spec/egress/0/to
        value: [{ipBlock: {cidr: 172.30.0.1/32}}]
  - target: {kind: Deployment, name: divvy-python-worker}
    patch: |
      - op: add
        path: /spec/template/spec/containers/0/args/-
        value: --import=lab_tasks
K
  echo "$LAB/lab-patches"
}

# For two cores, and within minutes: fewer workers, and less patience.
few_workers() {
  mkdir -p "$LAB/few-workers"
  cat >"$LAB/few-workers/kustomization.yaml" <<'K'
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
patches:
  - target: {kind: HorizontalPodAutoscaler, name: divvy-worker}
    patch: |
      - op: replace
        path: /spec/maxReplicas
        value: 6
      - op: replace
        path: /spec/behavior/scaleDown/stabilizationWindowSeconds
        value: 15
      - op: replace
        path: /spec/behavior/scaleDown/policies/0/periodSeconds
        value: 15
K
  echo "$LAB/few-workers"
}

# Writes once a second the slots that all kinds but `tasks` want, for the adapter, until the script ends.
write_wanted_slots() {
  while sleep 1 && kill -0 $$ 2>/dev/null; do
    from_own_node divvy-coordinator-0 8081 /metrics --fail | awk \
      '/^divvy_wanted_slots_by_kind[{]/ && !/kind="tasks"/ { sum += $2 } END { print int(sum) }' >"$LAB/run/wanted.new" || continue
    mv "$LAB/run/wanted.new" "$LAB/run/wanted"
  done
}

workers_are() {
  local replicas
  replicas=$(kd get deployment divvy-worker --output jsonpath='{.spec.replicas}')
  [ "$replicas" "$@" ]
}

# The autoscaler of Kubernetes adds workers while a job waits, and takes them away again.
assert_autoscaler() {
  local id
  id=$(submit '{"kind":"sleep","params":{"seconds":20,"tasks":36,"tasks_per_lease":1}}')
  until_seen 180 'workers are added' workers_are -ge 3
  until_seen 900 'the job succeeds' job_succeeded "$id"
  until_seen 600 'one worker is left' workers_are -eq 1
  echo 'the autoscaler adds workers and takes them away'
}

with_autoscaler() {
  local writer
  step 'the autoscaler of Kubernetes'
  grid=k8s component=
  lab adapter
  kd delete statefulset divvy-coordinator --ignore-not-found >/dev/null
  bring_up "$(overlay autoscaler k8s "k8s/components/autoscaling-hpa $(few_workers)")"
  write_wanted_slots &
  writer=$!
  assert_autoscaler
  kill "$writer"
  kd delete horizontalpodautoscaler divvy-worker >/dev/null
}

# taken FILE…: the API server takes these objects with every field, and has nothing to change when they are applied again.
taken() {
  local said
  said=$(k apply --validate=strict "$@" 2>&1) || fail "not taken: $said"
  said=$(k diff "$@" 2>&1) || fail "a second apply would change: $said"
}

# The manual's certificates.
certificates_of_the_manual() {
  awk '/^```yaml$/ { block = ""; inside = 1; next }
    /^```$/ { if (inside && block ~ /cert-manager/) printf "---\n%s", block; inside = 0 }
    inside { block = block $0 "\n" }' k8s/README.md
}

# Objects of operators, by the definitions of the operators' releases.
assert_types() {
  local file
  for file in "$(overlay monitoring k8s/monitoring)" "$(overlay monitoring-tls k8s/monitoring k8s/components/monitoring-tls)"; do
    taken --kustomize "$file"
  done
  certificates_of_the_manual >"$LAB/certificates.yaml"
  for file in k8s/components/autoscaling-keda/scaled-object.yaml "$LAB/certificates.yaml"; do
    taken --filename "$file"
    k delete --filename "$file" >/dev/null
  done
  echo "objects of KEDA, cert-manager and Prometheus' operator fit their types"
}

# generating TOKEN TAG: an overlay with that worker token in a Secret that it generates.
generating() {
  local directory
  directory=$(overlay "generating-$2" k8s '' "$2")
  printf 'namespace: divvy\nsecretGenerator: [{name: divvy-worker-token, literals: [token=%s]}]\n' "$1" >>"$directory/kustomization.yaml"
  echo "$directory"
}
generated_secrets() { kd get secrets --output name | grep --count '^secret/divvy-worker-token-' || true; }

# An upgrade brings the Secrets along that its overlay generates, and leaves none where it is refused.
assert_generated_secrets() {
  local log=$LAB/upgrade.log
  upgrade_to "$(generating first next)" >"$log" 2>&1 || fail "the upgrade: $(tail --lines 5 "$log")"
  [ "$(generated_secrets)" = 1 ] || fail 'no generated Secret is there'
  if PREFLIGHT_SECONDS=20 upgrade_to "$(generating second bad)" >"$log" 2>&1; then fail 'an image that is not there was rolled out'; fi
  grep --quiet 'nothing was changed' "$log" || fail "the upgrade: $(tail --lines 5 "$log")"
  [ "$(generated_secrets)" = 1 ] || fail 'a refused upgrade leaves its Secret'
  echo 'an upgrade brings the Secrets along that its overlay generates'
}

with_components() {
  step 'components over one coordinator'
  local plain tool names=k8s/components
  for tool in java mvn kcat; do
    command -v "$tool" >/dev/null || fail "this needs $tool, which scripts/test.sh installs"
  done
  grid=k8s component=
  # Traces are named last: the patches of the lab change the first variables.
  plain="$names/python-workers $names/service-account-identity $names/deletion-cost $names/ipv6 $names/kafka $names/traces $(lab_patches)"
  scripts/kafka/fetch.sh
  lab kafka
  lab collector
  kd delete statefulset divvy-coordinator --ignore-not-found >/dev/null
  kd delete secret divvy-worker-token --ignore-not-found >/dev/null
  kd create secret generic divvy-kafka --from-literal=brokers=172.30.0.1:9092 --dry-run=client --output=yaml |
    k apply --filename - >/dev/null
  bring_up "$(overlay components k8s "$plain")"
  assert_types
  assert_identity
  assert_admission
  assert_deletion_cost
  assert_traces
  assert_kafka
  assert_python_workers

  step 'the same over TLS'
  issue_both
  k apply --kustomize "$(overlay components-tls k8s "$plain $names/tls")" >/dev/null
  export CURL_CA_BUNDLE=$authority.crt SSL_CERT_FILE=$authority.crt
  url=https://172.30.0.100
  grid_is_ready
  until ask --output /dev/null "$url/sum-of-primes?a=10&b=100"; do sleep 0.5; done
  assert_python_workers
  table_of 'One coordinator over TLS'
  event 'certificates changed' certificates_changed
  event 'workers rolled out' workers_rolled_out
  k delete --kustomize "$(overlay components-tls k8s "$plain $names/tls")" >/dev/null
  unset CURL_CA_BUNDLE SSL_CERT_FILE
  url=http://172.30.0.100
  with_autoscaler
  step 'Secrets that an overlay generates'
  assert_generated_secrets
}
