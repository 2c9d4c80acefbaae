#!/usr/bin/env bash
# Applies an overlay of k8s/ in two steps: first Jobs start its images with its settings and end; where one of them fails, or
# its image cannot be had, nothing is changed. Then the overlay is applied, and undone for coordinators that do not get ready.
#
#   scripts/upgrade.sh [OVERLAY [NAMESPACE]]       default: k8s divvy
#
# Needs kubectl 1.27 or newer and access to the cluster. PREFLIGHT_SECONDS (180) and ROLLOUT_SECONDS (300) are how long the two steps
# may take.
set -euo pipefail

repository=$(realpath "$(dirname "$0")/..")
overlay=$(realpath "${1:-$repository/k8s}")
namespace=${2:-divvy}
preflight_seconds=${PREFLIGHT_SECONDS:-180}
rollout_seconds=${ROLLOUT_SECONDS:-300}
jobs=app.kubernetes.io/component=preflight
work=$(mktemp -d)

in_namespace() { kubectl --namespace "$namespace" "$@"; }

clean_up() {
  in_namespace delete job --selector "$jobs" --ignore-not-found --wait=false >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean_up EXIT

# NAME=succeeded/failed of every Job, a line each.
states() {
  in_namespace get job --selector "$jobs" \
    --output 'jsonpath={range .items[*]}{.metadata.name}={.status.succeeded}/{.status.failed}{"\n"}{end}'
}

refuse() {
  echo "REFUSED: $1; nothing was changed" >&2
  in_namespace get pod --selector "$jobs" --output wide >&2 || true
  in_namespace logs --selector "$jobs" --tail 20 --prefix >&2 || true
  exit 1
}

# The revision that the coordinator's pods are to have; none before the first apply.
revision() { in_namespace get statefulset divvy-coordinator --ignore-not-found --output 'jsonpath={.status.updateRevision}'; }

components=(preflight)
workloads=(deployment/divvy-worker)
rendered=$(kubectl kustomize "$overlay")
has() { grep --line-regexp "  name: $1" <<<"$rendered" >/dev/null; }
if has divvy-front; then
  components+=(preflight-front)
  workloads+=(deployment/divvy-front)
fi
# A Job for the coordinator and for each of them.
wanted=$((1 + ${#workloads[@]}))
# No Job: Python workers have no start that reads their settings and ends.
if has divvy-python-worker; then workloads+=(deployment/divvy-python-worker); fi

# Kustomize takes relative paths only.
cat >"$work/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: ["$(realpath --relative-to "$work" "$overlay")"]
components:
END
for component in "${components[@]}"; do
  echo "  - $(realpath --relative-to "$work" "$repository/k8s/components/$component")" >>"$work/kustomization.yaml"
done
kubectl kustomize "$work" >"$work/all.yaml"

# A Job cannot be changed.
in_namespace delete job --selector "$jobs" --ignore-not-found --wait >/dev/null
in_namespace apply --filename "$work/all.yaml" --selector "$jobs"
deadline=$((SECONDS + preflight_seconds))
until now=$(states) && [ "$(grep --count '=1/$' <<<"$now")" = "$wanted" ]; do
  if [[ $now =~ =[0-9]*/[1-9] ]]; then refuse 'an image does not start with these settings'; fi
  if [ "$SECONDS" -ge "$deadline" ]; then refuse "the images were not started within $preflight_seconds s"; fi
  sleep 1
done
echo 'the images start with these settings'

before=$(revision)
kubectl apply --kustomize "$overlay"
if ! in_namespace rollout status statefulset/divvy-coordinator --timeout "${rollout_seconds}s"; then
  # An undo of pods that this apply has not changed would bring back a revision that is older still.
  if [ -n "$before" ] && [ "$(revision)" != "$before" ]; then
    echo 'the coordinator does not get ready: its rollout is undone' >&2
    in_namespace rollout undo statefulset/divvy-coordinator
  else
    echo 'the coordinator does not get ready, and this apply has no earlier revision of its pods to go back to' >&2
  fi
  exit 1
fi
for workload in "${workloads[@]}"; do
  in_namespace rollout status "$workload" --timeout "${rollout_seconds}s"
done
