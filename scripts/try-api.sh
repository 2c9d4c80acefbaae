#!/usr/bin/env bash
# Tries the API of a real coordinator with a real worker against its own description: a browser shows every operation
# on the page at /docs/ without reaching any other host, and schemathesis sends what the description allows and what it
# does not, on both ports. Any 5xx, any answer that is not as described and any panic fails. Needs chromium, curl and
# python3; installs schemathesis under target/. With ONLY_FETCH it does no more than that.
#
# MAX_EXAMPLES and SEED say how much is tried of each operation, and what.
set -euo pipefail
cd "$(dirname "$0")/.."

SCHEMATHESIS_VERSION=4.32.5
tools=target/schemathesis
if ! "$tools/bin/st" --version 2>/dev/null | grep -qF "$SCHEMATHESIS_VERSION"; then
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$SCHEMATHESIS_VERSION"
fi
if [ -n "${ONLY_FETCH:-}" ]; then exit; fi
run=$(mktemp -d)
processes=()
failed=yes

clean_up() {
  for process in "${processes[@]}"; do
    kill -KILL "$process" 2>/dev/null || true
  done
  if [ "$failed" = yes ]; then
    tail -n 20 "$run"/*.log
  fi
  rm -rf "$run"
}
trap clean_up EXIT

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# The address that a service says it serves as `name=`.
address() {
  local log=$1 name=$2 deadline=$((SECONDS + 60)) found
  until found=$(grep -oEm1 "$name=[0-9.:]+" "$log"); do
    if [ "$SECONDS" -ge "$deadline" ]; then fail "no $name= in $log"; fi
    sleep 0.1
  done
  echo "http://${found#*=}"
}

submit() {
  curl --silent --show-error --fail --noproxy '*' --output "$run/answer" --json "$1" "$public/v1/jobs"
}

for binary in divvy-coordinator divvy-worker; do
  if [ ! -x "target/debug/$binary" ]; then fail "there is no target/debug/$binary: run cargo build"; fi
done

export DIVVY_LOG=info DIVVY_LOG_FORMAT=text NO_COLOR=1
DIVVY_PUBLIC_ADDR=127.0.0.1:0 DIVVY_INTERNAL_ADDR=127.0.0.1:0 DIVVY_DATA_DIR=$run/data \
  target/debug/divvy-coordinator >"$run/coordinator.log" 2>&1 &
coordinator=$!
processes+=("$coordinator")
public=$(address "$run/coordinator.log" public)
internal=$(address "$run/coordinator.log" internal)
DIVVY_LISTEN_ADDR=127.0.0.1:0 DIVVY_COORDINATOR=$internal DIVVY_WORKER_ID=one DIVVY_SLOTS=1 \
  target/debug/divvy-worker >"$run/worker.log" 2>&1 &
worker=$!
processes+=("$worker")
address "$run/worker.log" address >"$run/answer"
curl --silent --show-error --fail --noproxy '*' --output "$run/openapi.json" "$public/openapi.json"

# Every name but this machine's is unknown to the browser.
timeout 180 chromium --headless --no-sandbox --disable-gpu --user-data-dir="$run/chromium" --virtual-time-budget=20000 \
  --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' --dump-dom "$public/docs/" \
  >"$run/docs.html" 2>"$run/chromium.log"
python3 - "$run/openapi.json" "$run/docs.html" <<'PYTHON'
import json, re, sys

description, page = json.load(open(sys.argv[1])), open(sys.argv[2]).read()
shown = re.findall(r'data-path="([^"]*)"', page)
wanted = [path for path, methods in description["paths"].items() for _ in methods]
if sorted(shown) != sorted(wanted):
    sys.exit(f"FAILED: the page shows {sorted(shown)}, not {sorted(wanted)}")
print(f"the page shows all {len(shown)} operations")
PYTHON

# Something of each kind that lasts, so that no claim waits for a task.
submit '{"kind": "sum-of-primes", "params": {"a": 0, "b": 18446744073709551615}}'
submit '{"kind": "count-primes", "params": {"a": 0, "b": 18446744073709551615}}'
submit '{"kind": "sleep", "params": {"seconds": 3600, "tasks": 10000000}}'
seq -s , 1000000 | sed 's/.*/{"kind": "tasks", "params": {"list": [&]}}/' >"$run/tasks.json"
submit "@$run/tasks.json"

# A stream of events does not end, and a sum is not there at once. What no schema can say, such as that `a` is not above
# `b`, is refused although the schema allows it. A request may wait for a minute, and how long inputs take to be made says
# nothing of the API.
try() {
  "$tools/bin/st" run "$run/openapi.json" --url "$1" --seed "${SEED:-1}" --max-examples "${MAX_EXAMPLES:-30}" \
    --exclude-checks positive_data_acceptance --header 'Prefer: respond-async' --request-timeout 120 \
    --phases coverage,fuzzing,stateful --warnings off --suppress-health-check too_slow "${@:2}"
}
try "$public" --exclude-path-regex '^/v1/worker/|/events$'
try "$internal" --include-path-regex '^/v1/worker/'

if grep -hE 'panicked|ERROR (coordinator|store|scheduler)' "$run"/*.log; then fail 'a service had an error'; fi
for service in "$worker" "$coordinator"; do
  kill -TERM "$service"
  wait "$service" || fail "a service ended with $?"
done
failed=no
echo 'The API is as described.'
