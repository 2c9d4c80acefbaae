# Events of a cluster: a function for each, and the table of all. For scripts/try-cluster.sh, which has `grid`, `component`,
# `kd` and `lab`.

workers=app.kubernetes.io/component=worker

# The pod of the coordinator that leads.
leading() {
  local found
  if [ "$grid" = k8s ]; then
    echo divvy-coordinator-0
    return
  fi
  for _ in $(seq 60); do
    found=$(ask "$url/v1/coordinators" | python3 -c \
      'import json, sys; print(*[it["id"] for it in json.load(sys.stdin)["coordinators"] if it["role"] == "leader"])' || true)
    if [ -n "$found" ]; then
      echo "$found"
      return
    fi
    sleep 0.5
  done
  fail 'no coordinator leads'
}

node_of() { kd get pod "$1" --output jsonpath='{.spec.nodeName}'; }

workers_deleted() { kd delete pods --selector "$workers" --wait=false >/dev/null; }
workers_force_deleted() { kd delete pods --selector "$workers" --force --grace-period=0 >/dev/null 2>&1; }
workers_scaled() {
  kd scale deployment/divvy-worker --replicas=3 >/dev/null
  sleep 15
  kd scale deployment/divvy-worker --replicas=10 >/dev/null
}
workers_rolled_out() { kd rollout restart deployment/divvy-worker >/dev/null; }

# lost_and_back NODE SECONDS
lost_and_back() {
  lab lose "${1#n}"
  sleep "$2"
  lab node "${1#n}"
  k wait --for=condition=Ready "node/$1" --timeout=120s >/dev/null
}

worker_node_lost() {
  local leader n
  leader=$(node_of "$(leading)")
  for n in n1 n2 n3; do [ "$n" = "$leader" ] || break; done
  lost_and_back "$n" 20
}

coordinator_deleted() { kd delete pod "$(leading)" --wait=false >/dev/null; sleep 8; }
coordinator_restarted() { kd rollout restart statefulset/divvy-coordinator >/dev/null; sleep 8; }
token_changed() {
  kd delete secret divvy-worker-token --ignore-not-found >/dev/null
  kd create secret generic divvy-worker-token --from-literal=token="$RANDOM$RANDOM$RANDOM$RANDOM" >/dev/null
  kd rollout restart statefulset/divvy-coordinator deployment/divvy-worker >/dev/null
  sleep 8
}

# upgrade_to DIRECTORY: scripts/upgrade.sh, with this cluster's kubectl.
upgrade_to() {
  mkdir -p "$LAB/tools"
  printf '#!/bin/sh\nexec "%s" "%s" k "$@"\n' "$here/lab.sh" "$LAB" >"$LAB/tools/kubectl"
  chmod +x "$LAB/tools/kubectl"
  PATH=$LAB/tools:$PATH scripts/upgrade.sh "$1"
}
upgrade() { upgrade_to "$(overlay "upgrade-$1" "$grid" "$component" "$1")"; }
image_upgraded() { upgrade next >"$LAB/upgrade.log" 2>&1 || fail "the upgrade: $(tail --lines 5 "$LAB/upgrade.log")"; }
# The other release, by kubectl alone: coordinator and workers at once, as after an edit of the tag.
image_applied() {
  local tag=next
  [[ $(kd get statefulset divvy-coordinator --output jsonpath='{.spec.template.spec.containers[0].image}') != *:next ]] || tag=0.1.0
  k apply --kustomize "$(overlay "applied-$tag" "$grid" "$component" "$tag")" >/dev/null
  sleep 8
}
bad_image_upgraded() {
  if PREFLIGHT_SECONDS=20 upgrade bad >"$LAB/upgrade.log" 2>&1; then fail 'an image that is not there was rolled out'; fi
  grep --quiet 'nothing was changed' "$LAB/upgrade.log" || fail "the upgrade: $(tail --lines 5 "$LAB/upgrade.log")"
}
bad_image() {
  kd set image statefulset/divvy-coordinator coordinator=divvy-coordinator:bad >/dev/null
  kd set image deployment/divvy-worker worker=divvy-worker:bad >/dev/null
  sleep 20
  kd rollout undo statefulset/divvy-coordinator >/dev/null
  kd rollout undo deployment/divvy-worker >/dev/null
  sleep 8
}

node_drained() {
  local node
  node=$(node_of "$(leading)")
  k drain "$node" --ignore-daemonsets --delete-emptydir-data --timeout=180s >/dev/null 2>&1
  k uncordon "$node" >/dev/null
}
coordinator_force_deleted() {
  kd delete pod "$(leading)" --force --grace-period=0 >/dev/null 2>&1
  sleep 8
}
# With several coordinators nobody does anything. With one, the documented steps: make sure that the node is off, then say so.
coordinator_node_lost() {
  local node
  node=$(node_of "$(leading)")
  if [ "$grid" != k8s ]; then
    # Long enough that the control plane misses the node, too.
    lost_and_back "$node" 60
    return
  fi
  lab lose "${node#n}"
  k wait --for=condition=Ready=Unknown "node/$node" --timeout=120s >/dev/null
  k taint nodes "$node" node.kubernetes.io/out-of-service=nodeshutdown:NoExecute >/dev/null
  sleep 15
  lab node "${node#n}"
  k wait --for=condition=Ready "node/$node" --timeout=120s >/dev/null
  k taint nodes "$node" node.kubernetes.io/out-of-service=nodeshutdown:NoExecute- >/dev/null
}

# The wanted slots, as Prometheus would read them: from the pod's own node, which the policies admit.
wanted_slots() {
  local pod address node
  pod=$(leading)
  read -r address node < <(kd get pod "$pod" --output jsonpath='{.status.podIP} {.spec.nodeName}{"\n"}')
  lab inside "${node#n}" curl --silent --fail --max-time 5 "http://$address:8081/metrics" |
    awk '$1 == "divvy_wanted_slots" { print ($2 > 10 ? 10 : int($2)) }'
}

# By the state: the counts of tasks have a member of the same name.
job_succeeded() { ask "$url/v1/jobs/$1" | grep '"state":"succeeded"' >/dev/null; }

# Scales as an autoscaler does: as many workers as there are wanted slots, to zero and back. Stored jobs lose nothing by it.
autoscaled() {
  local wanted id round most=0
  kd scale deployment/divvy-worker --replicas=0 >/dev/null
  id=$(ask --header 'content-type: application/json' --data '{"kind":"sleep","params":{"seconds":5,"tasks":40,"tasks_per_lease":1}}' \
    "$url/v1/jobs" | python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])')
  for round in $(seq 120); do
    wanted=$(wanted_slots)
    [ "$wanted" -le "$most" ] || most=$wanted
    kd scale deployment/divvy-worker --replicas="$wanted" >/dev/null
    if job_succeeded "$id" && [ "$wanted" = 0 ]; then
      echo "autoscaled from 0 workers to $most and back to 0 in $((round * 2)) s, the job succeeded" | tee --append "$table"
      kd scale deployment/divvy-worker --replicas=10 >/dev/null
      grid_is_ready
      return
    fi
    sleep 2
  done
  fail 'the job was not done by workers that come and go'
}

all_events() {
  event 'workers deleted' workers_deleted
  event 'workers force-deleted' workers_force_deleted
  event 'workers scaled 10 → 3 → 10' workers_scaled
  event 'workers rolled out' workers_rolled_out
  event "a worker's node lost" worker_node_lost
  event 'leading coordinator deleted' coordinator_deleted
  event 'StatefulSet restarted' coordinator_restarted
  event 'token changed' token_changed
  event 'image upgraded by `scripts/upgrade.sh`' image_upgraded
  event 'image changed by `kubectl apply`' image_applied
  event "leading coordinator's node drained" node_drained
  event 'leading coordinator force-deleted' coordinator_force_deleted
  event "leading coordinator's node lost" coordinator_node_lost
  event 'bad images by `scripts/upgrade.sh`' bad_image_upgraded
  event 'bad images rolled out for 20 s, then undone' bad_image
  if [ -z "${EVENTS:-}" ] || [[ " $EVENTS " == *" autoscaled "* ]]; then autoscaled; fi
}
