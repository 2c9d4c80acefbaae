#!/usr/bin/env bash
# Runs the tests of traces with an OpenTelemetry Collector between the services and the tests: it must understand what the
# services send, and what it passes on must be the same. Needs Go 1.26 or later; builds the collector from its modules at the
# versions of e2e/collector/go.mod into target/, which takes a minute and a half of CPU time once.
set -euo pipefail
cd "$(dirname "$0")/.."

collector=$PWD/target/collector/otelcol
if ! command -v go >/dev/null; then
  echo "go is missing: install golang 1.26 or later" >&2
  exit 2
fi
mkdir -p "$(dirname "$collector")"
(cd e2e/collector && go build -mod=readonly -trimpath -o "$collector" .)
"$collector" --version
DIVVY_TEST_COLLECTOR=$collector cargo test --locked -p e2e --test grid -- traces:: "$@"
