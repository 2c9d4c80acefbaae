#!/usr/bin/env bash
# Cost of programs: the sandbox's overhead for one call beside bare ones, taken in turns, and tasks a second of an empty
# program over two slots beside `xargs -P2` and GNU parallel, and how much a program on one slot is slowed by a hostile one on
# the other. Prints Markdown. TASKS=10000 ROUNDS=7 PROFILE=release.
set -euo pipefail
cd "$(dirname "$0")/.."

TASKS=${TASKS:-10000}
PROFILE=${PROFILE:-release}
CALLS=${CALLS:-5000}
ROUNDS=${ROUNDS:-7}

cargo build --quiet --locked --profile "$PROFILE" -p coordinator -p worker -p divvy --bins
bin=${CARGO_TARGET_DIR:-$PWD/target}/$([ "$PROFILE" = dev ] && echo debug || echo "$PROFILE")

echo 'One call:'
echo
cargo run --quiet --locked --profile "$PROFILE" -p sandbox --features wasm --example overhead "$CALLS"
echo

directory=$(mktemp -d)
processes=()
finish() {
  for process in "${processes[@]}"; do kill "$process" 2>/dev/null || true; done
  wait
  rm -rf "$directory"
}
trap finish EXIT

# Nothing would come of waiting for a service that has ended.
need_services() {
  local process
  for process in "${processes[@]}"; do
    kill -0 "$process" 2>/dev/null || { echo 'a service has ended' >&2; exit 1; }
  done
}

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
public=$(port)
internal=$(port)
export DIVVY_URL=http://127.0.0.1:$public DIVVY_LOG=error
export DIVVY_TOKEN
DIVVY_TOKEN=$("$bin/divvy" token new bench --rights read,submit,programs --file "$directory/tokens.toml")
printf '[program.true]\ncommand = ["/usr/bin/true"]\n' > "$directory/programs.toml"
DIVVY_PUBLIC_ADDR=127.0.0.1:$public DIVVY_INTERNAL_ADDR=127.0.0.1:$internal DIVVY_DATA_DIR=$directory/data \
  DIVVY_API_TOKENS_FILE=$directory/tokens.toml "$bin/divvy-coordinator" & processes+=($!)
DIVVY_LISTEN_ADDR=127.0.0.1:0 DIVVY_COORDINATOR=http://127.0.0.1:$internal DIVVY_SLOTS=2 DIVVY_ALLOW_NATIVE=1 \
  DIVVY_PROGRAMS=$directory/programs.toml DIVVY_PROGRAM_DIR=$directory/worker "$bin/divvy-worker" & processes+=($!)
until [ "$("$bin/divvy" worker list --output quiet 2>/dev/null | wc -l)" = 1 ]; do need_services; sleep 0.1; done

# An empty module: `(module (memory (export "memory") 1) (func (export "_start")))`.
printf '\0asm\1\0\0\0\1\4\1\140\0\0\3\2\1\0\5\3\1\0\1\7\23\2\6memory\2\0\6_start\0\0\12\4\1\2\0\13' > "$directory/empty.wasm"
wasm=$("$bin/divvy" program put "$directory/empty.wasm")
native=$("$bin/divvy" program put /usr/bin/true)

# A row of the table: its name and the command that runs all tasks, which must succeed.
row() {
  local name=$1 before after
  shift
  before=$(date +%s%N)
  "$@" >/dev/null 2>"$directory/errors" || { cat "$directory/errors" >&2; echo "failed: $*" >&2; exit 1; }
  after=$(date +%s%N)
  echo "| $name | $((TASKS * 1000000000 / (after - before))) |"
}
job() { "$bin/divvy" job submit program --program "$1" --range "0..$TASKS" --step 1 --tasks-per-lease "$2" --wait --output quiet; }

echo "$TASKS tasks of a program that does nothing, over 2 slots:"
echo
echo '| way | tasks/s |'
echo '|---|---|'
# Fetched and compiled once.
for program in "$wasm" "$native"; do job "$program" 1 >/dev/null 2>&1; done
row 'WASI, a lease each' job "$wasm" 1
row 'WASI, up to 100 a lease' job "$wasm" 100
row 'native executable, a lease each' job "$native" 1
row 'native executable, up to 100 a lease' job "$native" 100
row 'named program, a lease each' job true 1
row 'named program, up to 100 a lease' job true 100
row '`xargs -P2`' sh -c "seq $TASKS | xargs -P2 -n1 /usr/bin/true"
if command -v parallel >/dev/null; then
  row 'GNU parallel `-j2`' sh -c "seq $TASKS | parallel -j2 /usr/bin/true"
fi

# A sieve that says how many microseconds it has taken: what a neighbour on the other slot feels.
cat > "$directory/sieve.c" <<'EOF'
#include <stdio.h>
#include <string.h>
#include <time.h>
enum { LIMIT = 1 << 20, TURNS = 400 };
static char composite[LIMIT];
static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}
int main(void) {
    long long before = now(), primes = 0;
    for (int turn = 0; turn < TURNS; turn++) {
        memset(composite, 0, sizeof composite);
        for (long number = 2; number < LIMIT; number++) {
            if (composite[number]) continue;
            primes++;
            for (long multiple = number * number; multiple < LIMIT; multiple += number) composite[multiple] = 1;
        }
    }
    // 82,025 primes are below 2^20.
    if (primes != 82025LL * TURNS) return 1;
    printf("%lld", now() - before);
}
EOF
cc -O2 -static -o "$directory/sieve" "$directory/sieve.c"
cc -O1 -pthread -o "$directory/hostile" crates/sandbox/tests/programs/hostile.c
sieve=$("$bin/divvy" program put "$directory/sieve")
hostile=$("$bin/divvy" program put "$directory/hostile")

submit() { "$bin/divvy" job submit program --output quiet "$@"; }
# Microseconds of one sieve.
sieve_time() {
  local id
  id=$(submit --program "$sieve" --range 0..1 --step 1 --priority 9 --wait)
  "$bin/divvy" job result "$id" --task 0
}
running() { "$bin/divvy" job show "$1" --output json | python3 -c 'import json, sys; print(json.load(sys.stdin)["tasks"]["running"])'; }
median() { sort -n | awk '{ all[NR] = $1 } END { print NR % 2 ? all[(NR + 1) / 2] : (all[NR / 2] + all[NR / 2 + 1]) / 2 }'; }
# A row of the table: the sieve alone and beside a program that is run again and again, in turns; the median of the ratios.
beside() {
  local name=$1 arguments=$2 tasks=${3:-10000} id alone round
  for _ in $(seq "$tasks"); do echo "$arguments"; done > "$directory/arguments.jsonl"
  for round in $(seq "$ROUNDS"); do
    alone=$(sieve_time)
    id=$(submit --program "$hostile" --args-file "$directory/arguments.jsonl" --max-attempts 1 --memory 256MiB)
    until [ "$(running "$id")" -ge 1 ]; do need_services; sleep 0.05; done
    echo "$(sieve_time) $alone"
    "$bin/divvy" job cancel "$id" >/dev/null
    until [ "$(running "$id")" = 0 ]; do need_services; sleep 0.05; done
  done | awk '{ print $1 / $2 }' | median | xargs printf "| $name | %.3f |\n"
}

echo
echo "A sieve on one slot beside a hostile program on the other, on $(nproc) cores; time beside it to time alone, median of $ROUNDS:"
echo
echo '| neighbour | ratio |'
echo '|---|---|'
beside 'fork bomb' '["fork"]'
beside 'memory bomb' '["memory", 100000000000]'
beside 'output flood' '["write", 1000000000000]'
# One task, which keeps its slot until its job is canceled.
beside '32 busy threads' '["busy threads", 32]' 1
beside 'scratch fill' '["fill", 1000000000]'
