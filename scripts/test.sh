#!/usr/bin/env bash
# All checks and tests of the project. Installs what they need beside Rust: kubectl, chromium, python3, and gcc and clang
# with wasi-libc for programs (Debian), cargo-deny (crates.io) and schemathesis (PyPI, under target/).
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_DENY_VERSION=0.20.2
unchecked=

step() { printf '\n== %s\n' "$*"; }

step 'tools'
rustup component add rustfmt clippy 2>/dev/null || true
missing=()
for tool in kubectl:kubernetes-client chromium:chromium curl:curl gcc:gcc clang:clang ld.lld:lld; do
  if ! command -v "${tool%:*}" >/dev/null; then missing+=("${tool#*:}"); fi
done
if ! python3 -c 'import ensurepip' 2>/dev/null; then missing+=(python3-venv); fi
if [ ! -e /usr/lib/wasm32-wasi/libc.a ]; then missing+=(wasi-libc libclang-rt-dev-wasm32); fi
if [ "${#missing[@]}" -gt 0 ]; then
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
# A debug build: it takes a third of the time to make and seconds more to run.
if ! cargo deny --version 2>/dev/null | grep -qF "$CARGO_DENY_VERSION"; then
  cargo install --locked --quiet --debug --version "$CARGO_DENY_VERSION" cargo-deny
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

step 'the Python SDK'
sdk/python/check.sh

if [ -n "$unchecked" ]; then
  printf '\nAll other checks passed, but NOT CHECKED: %s.\n' "$unchecked"
else
  printf '\nAll checks passed.\n'
fi
