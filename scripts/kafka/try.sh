#!/usr/bin/env bash
# A broker, a grid that uses it, a job through a topic, and what comes out; until Ctrl-C. Needs java, mvn and kcat.
set -euo pipefail
cd "$(dirname "$0")/../.."
for tool in java mvn kcat; do
  command -v "$tool" >/dev/null || { echo "this needs $tool, which scripts/test.sh installs" >&2; exit 1; }
done
port=${1:-9092}
brokers=127.0.0.1:$port
directory=$(mktemp -d)
processes=()
finish() {
  for process in "${processes[@]}"; do kill "$process" 2>/dev/null || true; done
  wait
  rm -rf "$directory"
}
trap finish EXIT
# Waits a moment for what a process brings, unless it has ended.
pause_for() { kill -0 "$1" 2>/dev/null || { echo "$2 has ended" >&2; exit 1; }; sleep 0.5; }

cargo build --quiet --profile quick --package divvy --features kafka
scripts/kafka/broker.sh "$port" "$directory/kafka" &
processes+=($!)
until kcat -b "$brokers" -L -m 1 >/dev/null 2>&1; do pause_for "${processes[0]}" 'the broker'; done
DIVVY_KAFKA_BROKERS=$brokers target/quick/divvy up --port 0 &
processes+=($!)

printf '%s\n' '{"kind":"count-primes","params":{"a":1,"b":10000000000}}' 'no job' |
  kcat -b "$brokers" -P -t divvy.submit.9
until kcat -b "$brokers" -C -t divvy.submit.dead -e -q -f 'dead letter: %s (%h)\n' 2>/dev/null | grep .; do
  pause_for "${processes[1]}" 'the grid'
done
target/quick/divvy monitor --brokers "$brokers" --from-beginning --events
