#!/usr/bin/env bash
# All checks and tests of the project. Installs what they need beside Rust: kubectl, chromium, python3, kcat, Java, Maven,
# make, a C++ compiler and OpenSSL's headers (Debian), Kafka's broker (Maven, under target/), cargo-deny (crates.io) and schemathesis (PyPI, under target/).
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_DENY_VERSION=0.20.2
unchecked=

step() { printf '\n== %s\n' "$*"; }

step 'tools'
rustup component add rustfmt clippy 2>/dev/null || true
missing=()
for tool in kubectl:kubernetes-client chromium:chromium curl:curl kcat:kcat java:default-jre-headless mvn:maven \
  openssl:openssl make:make g++:g++ pkg-config:pkg-config; do
  if ! command -v "${tool%:*}" >/dev/null; then missing+=("${tool#*:}"); fi
done
if ! python3 -c 'import ensurepip' 2>/dev/null; then missing+=(python3-venv); fi
if ! pkg-config --exists openssl 2>/dev/null; then missing+=(libssl-dev); fi
if [ "${#missing[@]}" -gt 0 ]; then
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
# A debug build: it takes a third of the time to make and seconds more to run.
if ! cargo deny --version 2>/dev/null | grep -qF "$CARGO_DENY_VERSION"; then
  cargo install --locked --quiet --debug --version "$CARGO_DENY_VERSION" cargo-deny
fi

scripts/kafka/fetch.sh

step 'format'
cargo fmt --all --check

step 'lints'
cargo clippy --workspace --all-targets --locked -- -D warnings
cargo clippy --package coordinator --package divvy --features kafka --all-targets --locked -- -D warnings

step 'dependencies'
# 3: everything but the advisories was looked at.
scripts/check-dependencies.sh || { [ $? = 3 ] && unchecked='known vulnerabilities of the dependencies'; }

step 'documentation'
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --quiet

step 'tests'
cargo test --workspace --locked
# The broker alone needs the feature; the other tests have run without it.
cargo test --package coordinator --features kafka --test kafka --locked
cargo test --package divvy --features kafka --bins --test kafka --locked

step 'the API as it describes itself'
scripts/try-api.sh

step 'the Python SDK'
sdk/python/check.sh

if [ -n "$unchecked" ]; then
  printf '\nAll other checks passed, but NOT CHECKED: %s.\n' "$unchecked"
else
  printf '\nAll checks passed.\n'
fi
