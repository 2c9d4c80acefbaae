#!/usr/bin/env bash
# Runs the manifests on a real Kubernetes of three nodes on this machine, under load, through everything that happens to a
# cluster, and prints what became of the requests: first with one coordinator, then with one behind the front, then with three over
# a PostgreSQL. Needs root, Debian 12, Go, Rust and 8 GiB of memory.
#
# It builds what is missing (about 20 minutes of CPU the first time), brings the cluster up in network namespaces of its own,
# applies the grid, its monitoring and its autoscaling, and takes all of it down again. LAB is where the cluster lives, by
# default target/cluster; KEEP=1 leaves it running, KEPT=1 uses one that was left; RATE is the requests a second, by default 15;
# AROUND the seconds of load before and after each event, by default 10; GRIDS which of `one`, `front` and `several`, and of `components`,
# which is not among them by default and needs Java, Maven and kcat; EVENTS which events.
set -euo pipefail
cd "$(dirname "$0")/.."

LAB=$(realpath --canonicalize-missing "${LAB:-target/cluster}")
rate=${RATE:-15}
around=${AROUND:-10}
here=$PWD/scripts/cluster
url=http://172.30.0.100
table=$LAB/table.md

. scripts/cluster/events.sh
. scripts/cluster/components.sh

lab() { "$here/lab.sh" "$LAB" "$@"; }
k() { lab k "$@"; }
kd() { k --namespace divvy "$@"; }
ask() { nsenter --net=/run/netns/kc curl --silent --fail --max-time 10 "$@"; }
step() { printf '\n== %s\n' "$*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

clean_up() {
  [ -z "${load:-}" ] || kill "$load" 2>/dev/null || true
  [ -n "${KEEP:-}" ] || lab down
}

# overlay NAME RESOURCE [COMPONENTS [TAG]]: the resource as this machine can run it, with components with blanks between. Two cores
# do not hold eleven CPUs: the requests shrink, the limits and with them the slots stay.
overlay() {
  local directory=$LAB/overlay-$1 resource=$2 components=${3:-} tag=${4:-} named
  mkdir -p "$directory"
  cat >"$directory/kustomization.yaml" <<K
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - $(realpath --relative-to="$directory" "$resource")
patches:
  - target: {kind: Deployment, name: divvy-worker}
    patch: '[{"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests/cpu", "value": "100m"}]'
  - target: {kind: StatefulSet, name: divvy-coordinator}
    patch: '[{"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests/cpu", "value": "100m"}]'
K
  if [[ $resource == *high-availability ]]; then
    cp "$here/manifests/shared-results.yaml" "$directory/"
    echo '  - path: shared-results.yaml' >>"$directory/kustomization.yaml"
  fi
  if [ -n "$components" ]; then
    echo 'components:' >>"$directory/kustomization.yaml"
    for named in $components; do
      echo "  - $(realpath --relative-to="$directory" "$named")" >>"$directory/kustomization.yaml"
    done
  fi
  if [ -n "$tag" ]; then
    printf 'images: [{name: divvy-coordinator, newTag: %s}, {name: divvy-worker, newTag: %s}]\n' "$tag" "$tag" \
      >>"$directory/kustomization.yaml"
  fi
  echo "$directory"
}

grid_is_ready() {
  kd rollout status statefulset/divvy-coordinator --timeout=240s >/dev/null
  kd rollout status deployment/divvy-worker --timeout=240s >/dev/null
  [ -z "$component" ] || kd rollout status deployment/divvy-front --timeout=240s >/dev/null
}

start_load() {
  nsenter --net=/run/netns/kc python3 "$here/load.py" "$url" "$rate" "$LAB/load.json" &
  load=$!
}

# Ends the load and writes a line of the table.
end_load() {
  kill "$load"
  wait "$load" || true
  load=
  python3 - "$LAB/load.json" "$1" <<'P' | tee --append "$table"
import json, sys
report = json.load(open(sys.argv[1]))
why = ", ".join(f"{count} {failure}" for failure, count in report["failures"].items())
print(f"| {sys.argv[2]} | {report['failed']} of {report['sent']} | {report['longest']} s | {why} |")
P
  echo "   (load average of the machine: $(cut --delimiter=' ' --fields=1 /proc/loadavg))"
}

# event NAME FUNCTION: load before it, and as long after it until the grid is as it was.
event() {
  local name=$1 happen=$2
  if [ -n "${EVENTS:-}" ] && ! [[ " $EVENTS " == *" $happen "* ]]; then return; fi
  start_load
  sleep "$around"
  "$happen"
  grid_is_ready
  sleep "$around"
  end_load "$name"
}

# A second apply must change nothing, whichever side computes it. Kubectl says "configured" of a budget even so, since its patch
# always replaces the selector: there the object's generation tells.
assert_unchanged() {
  local directory=$1 said budgets='{range .items[*]}{.metadata.name}={.metadata.generation} {end}' before
  said=$(k diff --kustomize "$directory" 2>&1) || fail "a second apply would change: $said"
  before=$(kd get poddisruptionbudgets --output jsonpath="$budgets")
  said=$(k apply --kustomize "$directory" 2>&1 |
    grep --invert-match --extended-regexp 'unchanged$|^poddisruptionbudget.* configured$' || true)
  [ -z "$said" ] || fail "a second apply says: $said"
  [ "$(kd get poddisruptionbudgets --output jsonpath="$budgets")" = "$before" ] || fail 'a second apply changes a budget'
  said=$(k apply --server-side --dry-run=server --kustomize "$directory" 2>&1) || fail "server-side apply conflicts: $said"
  echo "a second apply of $(basename "$directory") changes nothing"
}

# From outside, the coordinator's public port answers, and neither its internal one nor a worker's.
assert_policies() {
  local coordinator worker
  coordinator=$(kd get pod divvy-coordinator-0 --output jsonpath='{.status.podIP}')
  worker=$(kd get pod --selector app.kubernetes.io/component=worker --output jsonpath='{.items[0].status.podIP}')
  ask --max-time 5 --output /dev/null "http://$coordinator:8080/livez" || fail 'the public port does not answer'
  for address in "$coordinator:8081" "$worker:8082"; do
    if ask --max-time 2 --output /dev/null "http://$address/livez"; then fail "$address answers in spite of the policies"; fi
  done
  echo 'the network policies are enforced'
}

# The grid of an overlay, its address, and what a second apply says.
bring_up() {
  local directory=$1 port
  k apply --kustomize "$directory" >/dev/null
  kd patch service divvy-coordinator --subresource=status \
    --patch '{"status":{"loadBalancer":{"ingress":[{"ip":"172.30.0.100"}]}}}' >/dev/null
  grid_is_ready
  port=$(kd get service divvy-coordinator --output jsonpath='{.spec.healthCheckNodePort}')
  # The port of kube-proxy where any node can take connections.
  lab balance "${port:-10256}"
  assert_unchanged "$directory"
  assert_policies
  until ask --output /dev/null "$url/sum-of-primes?a=10&b=100"; do sleep 0.5; done
}

table_of() {
  {
    echo "$1"
    printf '\n| event | failed of sent | longest wait | why |\n|---|---|---|---|\n'
  } | tee --append "$table"
}

one_coordinator() {
  local scaled
  step 'one coordinator'
  grid=k8s component=
  kd delete statefulset divvy-coordinator --ignore-not-found >/dev/null
  bring_up "$(overlay one k8s)"
  k apply --validate=strict --kustomize k8s/monitoring >/dev/null
  for scaled in autoscaling-hpa autoscaling-keda; do
    k apply --validate=strict --dry-run=server --kustomize "$(overlay "$scaled" k8s "k8s/components/$scaled")" >/dev/null
  done
  echo 'monitoring and autoscaling are accepted'
  table_of 'One coordinator'
  all_events
}

one_behind_the_front() {
  step 'one coordinator behind the front'
  grid=k8s component=k8s/components/front
  kd delete statefulset divvy-coordinator --ignore-not-found >/dev/null
  bring_up "$(overlay front "$grid" "$component")"
  table_of 'One coordinator behind the front'
  all_events
  k delete --kustomize "$(overlay front "$grid" "$component")" >/dev/null
}

several_coordinators() {
  step 'three coordinators over a PostgreSQL'
  grid=k8s/overlays/high-availability component=
  kd delete statefulset divvy-coordinator --ignore-not-found >/dev/null
  k apply --filename "$here/manifests/results-claim.yaml" >/dev/null
  kd create secret generic divvy-store --from-literal=url='postgres://divvy:divvy@172.30.0.1/divvy?sslmode=disable' \
    --from-literal=results-url=file:///var/lib/divvy-results/grid --dry-run=client --output=yaml | k apply --filename - >/dev/null
  bring_up "$(overlay several "$grid")"
  table_of 'Three coordinators over a PostgreSQL'
  all_events
}

mkdir -p "$LAB"
trap clean_up EXIT
if [ -z "${KEPT:-}" ]; then
  "$here/build.sh" "$LAB"
  step 'cluster'
  lab down
  lab up
  k apply --filename k8s/namespace.yaml >/dev/null
fi
nodes=$(k get nodes --no-headers | wc --lines)
echo "$(date --utc +%F), $(nproc)-core machine, Kubernetes $(lab version), containerd, $nodes nodes, $rate requests a second, ten workers" |
  tee "$table"
for which in ${GRIDS:-one front several}; do
  case $which in
    one) one_coordinator ;;
    front) one_behind_the_front ;;
    several) several_coordinators ;;
    components) with_components ;;
    *) fail "$which is no grid" ;;
  esac
done
step "the table is in $table"
