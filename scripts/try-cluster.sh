#!/usr/bin/env bash
# Runs the manifests on a real Kubernetes of two nodes on this machine, under load, through everything that happens to a
# cluster, and prints what became of the requests. Needs root, Debian 12, Go, Rust and 8 GiB of memory.
#
# It builds what is missing (about 20 minutes of CPU the first time), brings the cluster up in network namespaces of its own,
# applies the grid, its monitoring and its autoscaling, and takes all of it down again. LAB is where the cluster lives, by
# default target/cluster; KEEP=1 leaves it running; RATE is the requests a second, by default 15; EVENTS names some events.
set -euo pipefail
cd "$(dirname "$0")/.."

LAB=$(realpath --canonicalize-missing "${LAB:-target/cluster}")
rate=${RATE:-15}
here=$PWD/scripts/cluster
url=http://172.30.0.100
table=$LAB/table.md
high_availability=k8s/overlays/high-availability

lab() { "$here/lab.sh" "$LAB" "$@"; }
k() { lab k "$@"; }
kd() { k --namespace divvy "$@"; }
step() { printf '\n== %s\n' "$*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

clean_up() {
  [ -n "${KEEP:-}" ] || lab down
}

# Two cores do not hold eleven CPUs: the requests shrink, the limits and with them the slots stay.
overlay() {
  local directory=$LAB/overlay-$1 resource=$2 component=${3:-}
  mkdir -p "$directory"
  cat >"$directory/kustomization.yaml" <<K
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [$(realpath --relative-to="$directory" "$resource")]
${component:+components: [$(realpath --relative-to="$directory" "$component")]}
patches:
  - target: {kind: Deployment, name: divvy-worker}
    patch: '[{"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests/cpu", "value": "100m"}]'
  - target: {kind: StatefulSet, name: divvy-coordinator}
    patch: '[{"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests/cpu", "value": "100m"}]'
K
  echo "$directory"
}

grid_is_ready() {
  kd rollout status statefulset/divvy-coordinator --timeout=180s >/dev/null
  kd rollout status deployment/divvy-worker --timeout=180s >/dev/null
}

start_load() {
  nsenter --net=/run/netns/kc python3 "$here/load.py" "$url" "$rate" "$LAB/load.json" &
  load=$!
}

# Ends the load and writes a line of the table.
end_load() {
  kill "$load"
  wait "$load" || true
  python3 - "$LAB/load.json" "$1" <<'P' | tee --append "$table"
import json, sys
report = json.load(open(sys.argv[1]))
why = ", ".join(f"{count} {failure}" for failure, count in report["failures"].items())
print(f"| {sys.argv[2]} | {report['failed']} of {report['sent']} | {report['longest']} s | {why} |")
P
}

# event NAME FUNCTION: 10 s of load before it, and as long after it until the grid is as it was.
event() {
  local name=$1 happen=$2
  if [ -n "${EVENTS:-}" ] && ! [[ " $EVENTS " == *" $happen "* ]]; then return; fi
  start_load
  sleep 10
  "$happen"
  grid_is_ready
  sleep 10
  end_load "$name"
}

workers_deleted() { kd delete pods --selector app.kubernetes.io/component=worker --wait=false >/dev/null; }
workers_force_deleted() {
  kd delete pods --selector app.kubernetes.io/component=worker --force --grace-period=0 >/dev/null 2>&1
}
workers_scaled() {
  kd scale deployment/divvy-worker --replicas=3 >/dev/null
  sleep 15
  kd scale deployment/divvy-worker --replicas=10 >/dev/null
}
workers_rolled_out() { kd rollout restart deployment/divvy-worker >/dev/null; }

node_of_coordinator() { kd get pod divvy-coordinator-0 --output jsonpath='{.spec.nodeName}'; }
other_node() { [ "$(node_of_coordinator)" = n1 ] && echo 2 || echo 1; }

worker_node_lost() {
  local n
  n=$(other_node)
  lab lose "$n"
  sleep 20
  lab node "$n"
  k wait --for=condition=Ready "node/n$n" --timeout=120s >/dev/null
}

coordinator_deleted() { kd delete pod divvy-coordinator-0 --wait=false >/dev/null; sleep 8; }
coordinator_restarted() { kd rollout restart statefulset/divvy-coordinator >/dev/null; sleep 8; }
token_changed() {
  kd delete secret divvy-worker-token --ignore-not-found >/dev/null
  kd create secret generic divvy-worker-token --from-literal=token="$RANDOM$RANDOM$RANDOM$RANDOM" >/dev/null
  kd rollout restart statefulset/divvy-coordinator deployment/divvy-worker >/dev/null
  sleep 8
}
image_upgraded() {
  kd set image statefulset/divvy-coordinator coordinator=divvy-coordinator:next >/dev/null
  kd set image deployment/divvy-worker worker=divvy-worker:next >/dev/null
  sleep 8
}
node_drained() {
  local node
  node=$(node_of_coordinator)
  k drain "$node" --ignore-daemonsets --delete-emptydir-data --timeout=120s >/dev/null 2>&1
  k uncordon "$node" >/dev/null
}
coordinator_force_deleted() {
  kd delete pod divvy-coordinator-0 --force --grace-period=0 >/dev/null 2>&1
  sleep 8
}
# The documented steps: make sure that the node is off, then say so.
coordinator_node_lost() {
  local node
  node=$(node_of_coordinator)
  lab lose "${node#n}"
  k wait --for=condition=Ready=Unknown "node/$node" --timeout=120s >/dev/null
  k taint nodes "$node" node.kubernetes.io/out-of-service=nodeshutdown:NoExecute >/dev/null
  sleep 15
  lab node "${node#n}"
  k wait --for=condition=Ready "node/$node" --timeout=120s >/dev/null
  k taint nodes "$node" node.kubernetes.io/out-of-service=nodeshutdown:NoExecute- >/dev/null
}
bad_image() {
  kd set image statefulset/divvy-coordinator coordinator=divvy-coordinator:bad >/dev/null
  kd set image deployment/divvy-worker worker=divvy-worker:bad >/dev/null
  sleep 20
  kd rollout undo statefulset/divvy-coordinator >/dev/null
  kd rollout undo deployment/divvy-worker >/dev/null
  sleep 8
}

# What an autoscaler does: as many workers as there are wanted slots, to zero and back. Stored jobs lose nothing by it.
autoscaled() {
  local wanted id round
  kd scale deployment/divvy-worker --replicas=0 >/dev/null
  id=$(nsenter --net=/run/netns/kc curl --silent --fail --header 'content-type: application/json' --data \
    '{"kind":"sum-of-primes","params":{"a":1,"b":20000000000}}' "$url/v1/jobs" | python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])')
  for round in $(seq 120); do
    wanted=$(k get --raw /api/v1/namespaces/divvy/pods/divvy-coordinator-0:8081/proxy/metrics |
      awk '$1 == "divvy_wanted_slots" { print ($2 > 10 ? 10 : $2) }')
    kd scale deployment/divvy-worker --replicas="$wanted" >/dev/null
    if nsenter --net=/run/netns/kc curl --silent --fail "$url/v1/jobs/$id" | grep --quiet '"succeeded"' && [ "$wanted" = 0 ]; then
      echo "autoscaled from 0 to its wanted slots and back to 0 in $((round * 2)) s"
      kd scale deployment/divvy-worker --replicas=10 >/dev/null
      return
    fi
    sleep 2
  done
  fail 'the job was not done by workers that come and go'
}

# A second apply must change nothing, whichever side computes it.
assert_unchanged() {
  local directory=$1 said
  said=$(k diff --kustomize "$directory" 2>&1) || fail "a second apply would change: $said"
  said=$(k apply --kustomize "$directory" 2>&1 | grep --invert-match unchanged || true)
  [ -z "$said" ] || fail "a second apply says: $said"
  said=$(k apply --server-side --dry-run=server --kustomize "$directory" 2>&1) || fail "server-side apply conflicts: $said"
  echo "a second apply of $(basename "$directory") changes nothing"
}

mkdir -p "$LAB"
"$here/build.sh" "$LAB"
trap clean_up EXIT
step 'cluster'
lab down
lab up
step 'grid'
base=$(overlay base k8s)
k apply --filename k8s/namespace.yaml >/dev/null
k apply --kustomize "$base" >/dev/null
kd patch service divvy-coordinator --subresource=status \
  --patch '{"status":{"loadBalancer":{"ingress":[{"ip":"172.30.0.100"}]}}}' >/dev/null
grid_is_ready
assert_unchanged "$base"
k apply --kustomize k8s/monitoring >/dev/null
for component in autoscaling-hpa autoscaling-keda; do
  k apply --dry-run=server --kustomize "$(overlay "$component" k8s "k8s/components/$component")" >/dev/null
done
echo 'monitoring and autoscaling are accepted'
if [ -d "$high_availability" ]; then
  k apply --dry-run=server --kustomize "$(overlay high-availability "$high_availability")" >/dev/null
  echo 'high availability is accepted; its events need a database, which this cluster does not have'
fi

step 'events'
{
  echo "$(date --utc +%F), $(nproc) cores, $(grep --max-count=1 'model name' /proc/cpuinfo | cut --delimiter=: --fields=2- | xargs), $rate requests a second, one coordinator, ten workers"
  printf '\n| event | failed of sent | longest wait | why |\n|---|---|---|---|\n'
} | tee "$table"
event 'workers deleted' workers_deleted
event 'workers force-deleted' workers_force_deleted
event 'workers scaled 10 → 3 → 10' workers_scaled
event 'workers rolled out' workers_rolled_out
event "a worker's node lost" worker_node_lost
event 'coordinator pod deleted' coordinator_deleted
event 'StatefulSet restarted' coordinator_restarted
event 'token changed' token_changed
event 'image upgraded' image_upgraded
event "coordinator's node drained" node_drained
event 'coordinator force-deleted' coordinator_force_deleted
event "coordinator's node lost, documented steps" coordinator_node_lost
event 'bad images rolled out for 20 s, then undone' bad_image
autoscaled
step "the table is in $table"
