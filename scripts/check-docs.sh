#!/usr/bin/env bash
# Builds the documentation of all libraries and programs; a warning fails. Arguments go to cargo.
set -euo pipefail
cd "$(dirname "$0")/.."

# The programs, but for those with the name of their library, whose pages have the same place.
programs=$(cargo metadata --no-deps --locked --format-version 1 | python3 -c '
import json, sys
for package in json.load(sys.stdin)["packages"]:
    libraries = {target["name"] for target in package["targets"] if "lib" in target["kind"]}
    programs = {target["name"] for target in package["targets"] if "bin" in target["kind"]}
    for name in sorted(programs - libraries):
        print("--bin", name)
')
# An example needs the dependencies of tests. Without one, cargo chooses other features and checks half of all dependencies again
# after clippy has checked them.
# shellcheck disable=SC2086
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --quiet --lib $programs --example range "$@"
