#!/usr/bin/env bash
# The dashboard in a real browser, and its scripts before a linter. Needs node, npm, Debian's chromium and postgresql, and
# the services in target/debug; fetches playwright-core, axe-core and biome from npm into target/browser. With ONLY_FETCH it
# does no more.
set -euo pipefail
cd "$(dirname "$0")/../.."

PLAYWRIGHT_VERSION=1.65.1
AXE_VERSION=4.14.1
BIOME_VERSION=2.6.8

for tool in node npm chromium; do
  command -v "$tool" >/dev/null || { echo "e2e/browser/check.sh needs $tool" >&2; exit 1; }
done
mkdir -p target/browser
[ -f target/browser/package.json ] || echo '{"private": true}' > target/browser/package.json
npm install --prefix target/browser --no-audit --no-fund --silent --save-exact \
  "playwright-core@$PLAYWRIGHT_VERSION" "axe-core@$AXE_VERSION" "@biomejs/biome@$BIOME_VERSION"
if [ -n "${ONLY_FETCH:-}" ]; then exit; fi

# The scripts are no modules, and innerText is what playwright waits for.
target/browser/node_modules/.bin/biome lint --error-on-warnings --skip=suspicious/noRedundantUseStrict \
  --skip=performance/useDomNodeTextContent crates/dashboard/assets/*.js e2e/browser

BROWSER_MODULES=$PWD/target/browser node --test --test-concurrency=1 e2e/browser/*.test.mjs
