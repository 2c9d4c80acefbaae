#!/usr/bin/env bash
# Writes a bill of materials (CycloneDX 1.5, JSON) of each service, as its image is built, to target/sbom/NAME.cdx.json: every crate
# that is linked into it on Linux, with version, licence and hash. Needs cargo; installs cargo-cyclonedx of crates.io below
# target/tools.
set -euo pipefail
cd "$(dirname "$0")/.."

CYCLONEDX_VERSION=0.5.9
tool=$PWD/target/tools/bin/cargo-cyclonedx

# bill PACKAGE FEATURES
bill() {
  local package=$1 features=$2 name=divvy-$1.cdx
  # Beside its manifest, and beside those of the other members of the workspace.
  "$tool" cyclonedx --quiet --manifest-path "$package/Cargo.toml" --format json --spec-version 1.5 \
    --target x86_64-unknown-linux-gnu --no-build-deps --features "$features" --override-filename "$name"
  mkdir -p target/sbom
  mv "$package/$name.json" target/sbom/
  find . -path ./target -prune -o -name "$name.json" -exec rm {} +
  echo "target/sbom/$name.json"
}

if ! "$tool" cyclonedx --version 2>/dev/null | grep -qF "$CYCLONEDX_VERSION"; then
  # A debug build: it takes a third of the time to make.
  cargo install --locked --quiet --debug --version "$CYCLONEDX_VERSION" --root target/tools cargo-cyclonedx
fi
bill coordinator kafka
bill worker wasm
