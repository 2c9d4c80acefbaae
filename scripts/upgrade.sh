#!/usr/bin/env bash
# Applies an overlay of k8s/ in two steps: first Jobs start its images with its settings and end; where one of them fails, or
# its image cannot be had, or the API server would refuse an object, nothing is changed. Then the overlay is applied. Where
# coordinators do not get ready, their pods are undone, and those of workers and fronts, which would not go with them. An earlier
# release refuses a store whose tables the later one has changed: back up before an upgrade.
# Secrets and ConfigMaps of the overlay that the Jobs read and the cluster does not have, such as generated ones, are created for
# the Jobs and deleted again where one of them fails. Those that the cluster has are read as they are.
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
created=()

in_namespace() { kubectl --namespace "$namespace" "$@"; }

clean_up() {
  local file
  # An empty list is an unset one to older versions of bash.
  for file in ${created[@]+"${created[@]}"}; do
    in_namespace delete --filename "$file" --ignore-not-found --wait=false >/dev/null 2>&1 || true
  done
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

# The revision that the pods of a workload are to have; none before the first apply.
revision() {
  local path=.status.updateRevision
  if [[ $1 = deployment/* ]]; then path='.metadata.annotations.deployment\.kubernetes\.io/revision'; fi
  in_namespace get "$1" --ignore-not-found --output "jsonpath={$path}"
}

# Writes the Jobs of the manifests to $work/jobs, and each Secret and ConfigMap of the namespace to $work/settings/KIND-NAME.yaml.
split_manifests() {
  mkdir "$work/settings"
  awk -v namespace="$namespace" -v work="$work" '
    function finish() {
      if (kind == "Job") printf "%s", text >(work "/jobs")
      if ((kind == "Secret" || kind == "ConfigMap") && within == namespace)
        printf "%s", text >(work "/settings/" kind "-" name ".yaml")
      kind = name = within = text = ""
    }
    /^---$/ { finish(); next }
    { text = text $0 "\n" }
    /^[^ ]/ { section = $1 }
    /^kind: / { kind = $2 }
    section == "metadata:" && /^  name: / { name = $2 }
    section == "metadata:" && /^  namespace: / { within = $2 }
    END { finish() }' "$work/all.yaml"
}

# Creates the settings that the Jobs name and the cluster does not have.
create_settings() {
  local file name found
  for file in "$work"/settings/*.yaml; do
    [ -e "$file" ] || continue
    name=$(basename "$file" .yaml)
    grep --quiet --line-regexp " *name: ${name#*-}" "$work/jobs" || continue
    found=$(in_namespace get --filename "$file" --ignore-not-found --output name)
    [ -z "$found" ] || continue
    in_namespace create --filename "$file" --save-config
    created+=("$file")
  done
}

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
# In the namespace of the generated Secrets, or kustomize would leave their old names in the Jobs.
cat >>"$work/kustomization.yaml" <<END
patches:
  - target: {kind: Job, labelSelector: "$jobs"}
    patch: '[{"op": "add", "path": "/metadata/namespace", "value": "$namespace"}]'
END
kubectl kustomize "$work" >"$work/all.yaml"
split_manifests

# A Job cannot be changed.
in_namespace delete job --selector "$jobs" --ignore-not-found --wait >/dev/null
create_settings
in_namespace apply --filename "$work/all.yaml" --selector "$jobs"
deadline=$((SECONDS + preflight_seconds))
until now=$(states) && [ "$(grep --count '=1/$' <<<"$now")" = "$wanted" ]; do
  if [[ $now =~ =[0-9]*/[1-9] ]]; then refuse 'an image does not start with these settings'; fi
  if [ "$SECONDS" -ge "$deadline" ]; then refuse "the images were not started within $preflight_seconds s"; fi
  sleep 1
done
echo 'the images start with these settings'
# An apply that fails half-way leaves the objects that came first changed.
if ! kubectl apply --dry-run=server --kustomize "$overlay" >/dev/null; then
  echo 'REFUSED: the cluster does not take the manifests; nothing was changed' >&2
  exit 1
fi
# From here on they are the overlay's.
created=()

every=(statefulset/divvy-coordinator "${workloads[@]}")
before=()
for workload in "${every[@]}"; do before+=("$(revision "$workload")"); done
# An undo of pods that this apply has not changed would bring back a revision that is older still.
is_changed() { [ -n "${before[$1]}" ] && [ "$(revision "${every[$1]}")" != "${before[$1]}" ]; }

kubectl apply --kustomize "$overlay"
if ! in_namespace rollout status statefulset/divvy-coordinator --timeout "${rollout_seconds}s"; then
  if is_changed 0; then
    echo 'the coordinator does not get ready: the rollout is undone' >&2
    for index in "${!every[@]}"; do
      if is_changed "$index"; then in_namespace rollout undo "${every[$index]}"; fi
    done
    if in_namespace rollout status statefulset/divvy-coordinator --timeout "${rollout_seconds}s"; then
      echo 'the coordinator of the earlier revision is ready' >&2
    else
      echo 'the coordinator of the earlier revision does not get ready either: its log says why. A release refuses a store whose' \
        'tables a later one has changed: then go on with the later one, or restore a backup (docs/operation.md)' >&2
    fi
  else
    echo 'the coordinator does not get ready, and this apply has no earlier revision of its pods to go back to' >&2
  fi
  exit 1
fi
for workload in "${workloads[@]}"; do
  if ! in_namespace rollout status "$workload" --timeout "${rollout_seconds}s"; then
    echo "the coordinator is ready; $workload is not rolled out within $rollout_seconds s, and its rollout goes on" >&2
    exit 1
  fi
done
