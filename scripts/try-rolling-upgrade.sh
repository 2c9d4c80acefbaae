#!/usr/bin/env bash
# Replaces coordinators of an earlier release by those of these sources, one after the other, while jobs run over one PostgreSQL, and
# lets workers of either release compute for a coordinator of the other one.
#
#   scripts/try-rolling-upgrade.sh [COMMIT]
#
# COMMIT is the earlier release; by default the one before PostgreSQL's schema was changed last. It is built from the history, in
# target/earlier, which takes as long as a first build. EARLIER_RELEASE names a directory with its programs instead.
set -euo pipefail
cd "$(dirname "$0")/.."

changed=$(git log -1 --format=%H -- crates/store-postgres/migrations)
commit=${1:-$changed~1}
if [ -z "${EARLIER_RELEASE:-}" ]; then
  sources=target/earlier/sources
  rm -rf "$sources"
  mkdir -p "$sources"
  git archive "$commit" | tar --extract --directory "$sources"
  (cd "$sources" && cargo build --quiet --locked --package coordinator --package worker --bins --target-dir ../target)
  EARLIER_RELEASE=$PWD/target/earlier/target/debug
fi
E2E_EARLIER_RELEASE=$EARLIER_RELEASE cargo test --quiet --locked --package e2e --test grid -- --ignored rolling_upgrade
