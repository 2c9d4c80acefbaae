#!/usr/bin/env bash
# Puts the CustomResourceDefinitions of the operators that k8s/ has objects for into target/tools/crds, a directory for each release:
# KEDA, cert-manager and Prometheus' operator, from their Go modules. GO is the Go to use, 1.26 or newer.
#
# The newest release of Prometheus' operator that its module has whole is there as it was made; of the newest one there are the
# types alone, and controller-gen makes the definitions of them as the operator's own build does. That takes a minute of CPU, once.
set -euo pipefail
cd "$(dirname "$0")/.."

CONTROLLER_GEN=v0.23.0
# Directory, module and version, the module's checksum, and where in it the definitions are; `types` are Go's.
releases=(
  'keda github.com/kedacore/keda/v2@v2.21.0 h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps= config/crd/bases/keda.sh_scaledobjects.yaml'
  'cert-manager github.com/cert-manager/cert-manager@v1.21.2 h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68= deploy/crds/cert-manager.io_*.yaml'
  'prometheus-operator-0.85 github.com/prometheus-operator/prometheus-operator@v0.85.0 h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s= example/prometheus-operator-crd/*.yaml'
  'prometheus-operator github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring@v0.95.2 h1:DQKGQhE39ua9V+ZCro38z32jP8nAtIZ27f3qdAorXHg= types'
)

go=${GO:-go}
[[ $go != */* ]] || go=$(realpath "$go")
crds=$PWD/target/tools/crds
if cmp -s "$0" "$crds/.complete"; then exit 0; fi
rm -rf "$crds"
mkdir -p "$crds"
for release in "${releases[@]}"; do
  read -r name module checksum files <<<"$release"
  described=$("$go" mod download -json "$module")
  field() { sed --quiet "s/^\t\"$1\": \"\(.*\)\",\?$/\1/p" <<<"$described"; }
  [ "$(field Sum)" = "$checksum" ] || { echo "$module has the checksum $(field Sum), not $checksum" >&2 && exit 1; }
  mkdir "$crds/$name"
  if [ "$files" = types ]; then
    GOBIN=$PWD/target/tools/bin CGO_ENABLED=0 "$go" install "sigs.k8s.io/controller-tools/cmd/controller-gen@$CONTROLLER_GEN"
    # It runs `go` itself, to read the packages.
    (cd "$(field Dir)" && PATH=$(dirname "$(command -v "$go")"):$PATH "$OLDPWD/target/tools/bin/controller-gen" \
      crd:crdVersions=v1 paths=./v1/. "output:crd:dir=$crds/$name")
  else
    # The pattern is meant to be one. What the module cache has is read-only.
    (cd "$(field Dir)" && install -m 644 $files "$crds/$name/")
  fi
done
cp "$0" "$crds/.complete"
