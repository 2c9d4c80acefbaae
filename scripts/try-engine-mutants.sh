#!/usr/bin/env bash
# Plants bugs in the engine, one at a time in a copy of the sources, and shows that its tests or some hundred simulated
# seeds find each of them. With names as arguments, only those.
set -euo pipefail
cd "$(dirname "$0")/.."

COPY=target/engine-mutants/sources
TIMEOUT_SECONDS=300
SEEDS=${SEEDS:-0..400}

export CARGO_TARGET_DIR="$PWD/target/engine-mutants/target"
export RUST_BACKTRACE=0 RUSTFLAGS='--cap-lints allow'

wanted=("$@")
missed=()

# Name, file below crates/engine/src, sed script.
mutant() {
  local name=$1 file=$2 script=$3
  if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $name "* ]]; then return; fi
  local source=crates/engine/src/$file output=target/engine-mutants/$name.log
  sed -E "$script" "$source" > "$COPY/$source"
  if cmp -s "$source" "$COPY/$source"; then
    echo "$name: the line to change is not there any more" >&2
    exit 2
  fi
  if [ -n "${ONLY_PLANT:-}" ]; then
    cp "$source" "$COPY/$source"
    echo "$name: planted"
    return
  fi
  if ! (cd "$COPY" && cargo build --quiet --locked --package simulation) > "$output" 2>&1; then
    echo "$name: does not compile, see $output" >&2
    exit 2
  fi
  if ! (cd "$COPY" && timeout "$TIMEOUT_SECONDS" "$CARGO_TARGET_DIR/debug/simulation" --seeds "$SEEDS" --jobs 2) >> "$output" 2>&1; then
    printf '%-42s found by %s\n' "$name" "$(grep -m1 'fails at step' "$output" | cut -c1-110)"
  elif ! (cd "$COPY" && timeout "$TIMEOUT_SECONDS" cargo test --quiet --locked --package engine --lib) >> "$output" 2>&1; then
    printf '%-42s found by %s\n' "$name" "$(sed -nE 's/^    (tests::[a-z_:]+)$/\1/p' "$output" | sed -n 1p)"
  else
    missed+=("$name")
    printf '%-42s NOT FOUND\n' "$name"
  fi
  cp "$source" "$COPY/$source"
}

rm -rf "$COPY"
mkdir -p "$COPY"
git ls-files -z | xargs -0 cp --no-dereference --parents -t "$COPY"
if [ -z "${ONLY_PLANT:-}" ]; then
  (cd "$COPY" && cargo test --quiet --locked --package engine --lib > ../unchanged.log 2>&1 &&
    cargo build --quiet --locked --package simulation &&
    "$CARGO_TARGET_DIR/debug/simulation" --seeds "$SEEDS" --jobs 2 > ../unchanged.log 2>&1) || {
    echo "the tests fail without any bug, see target/engine-mutants/unchanged.log" >&2
    exit 2
  }
fi

mutant an-outcome-is-settled-too-early durability.rs 's/\*change <= self\.stored/*change <= self.stored + 2/'
mutant an-outcome-is-never-pending durability.rs 's/self\.pending\.contains\(&attempt\)/false \&\& self.pending.contains(\&attempt)/'
mutant a-failure-is-adopted-again reconcile.rs 's/ \|\| self\.voided\.contains\(lease\.attempt\)//'
mutant a-pending-outcome-is-void reconcile.rs 's/self\.durability\.is_pending\(held\.attempt\) \|\| //'
mutant a-broken-connection-is-forgotten leases.rs '/pub fn connection_broke/,/^    }/s/worker\.detached\.insert\(attempt, 0\);//'
mutant one-heartbeat-gives-a-lease-up reconcile.rs 's/const MISSES: u32 = 2;/const MISSES: u32 = 1;/'
mutant a-listed-lease-is-not-renewed reconcile.rs 's/\(true, HeldState::Running\) => drop\(.*\),/(true, HeldState::Running) => (),/'
mutant outcomes-are-not-asked-for reconcile.rs 's/reconciled\.deliver\.push\(lease\.attempt\)/()/'
mutant void-leases-are-not-settled reconcile.rs 's/\(false, _\) => reconciled\.settled\.push\(lease\.attempt\),/(false, _) => (),/'
mutant an-adopted-lease-takes-no-slot reconcile.rs 's/self\.occupy\(lane\);//'
mutant a-hold-never-ends engine.rs 's/self\.end_recovery\(\);//'
mutant nothing-is-held-after-a-restart jobs.rs 's/self\.insert_stored\(job, has_started, now\)/self.insert_stored(job, false, now)/'
mutant an-ended-lease-keeps-its-slot slots.rs '/pub\(crate\) fn vacate/,/^    }/s/slot\.leases = slot\.leases\.saturating_sub\(1\);//'
mutant three-leases-at-a-slot slots.rs 's/const LEASES_PER_SLOT: u8 = 2;/const LEASES_PER_SLOT: u8 = 3;/'
mutant a-head-start-outlives-its-worker workers.rs 's/self\.end_head_starts_of\(key\);//'
mutant a-pause-outlives-its-worker workers.rs 's/self\.end_pause_of\(key\);//'
mutant no-head-start slots.rs 's/ && !has_head_start//'
mutant a-suspended-worker-never-comes-back standing.rs 's/self\.scheduler\.worker_resumed\(key\);//'
mutant one-job-suspends-for-a-pause standing.rs 's/worker\.failed_jobs\.len\(\) > 1/worker.failed_jobs.len() > 0/'
mutant a-draining-worker-gets-more standing.rs 's/self\.scheduler\.worker_retired\(key, now\.instant\);//'
mutant a-waiting-claim-outlives-its-worker workers.rs 's/self\.claims\.forget_worker\(key\);//'
mutant an-answered-claim-waits-on claims.rs '/fn lease_to_claim/,/^    }/s/self\.claims\.remove\(id\);//'
mutant a-canceled-composition-ends-its-job composing.rs 's/if !progress\.is_canceled \{/if true {/'
mutant a-composition-is-not-counted composing.rs 's/self\.running -= 1;//'
mutant a-failed-composition-is-not-repeated composing.rs 's/self\.retries\.insert\(\(now \+ pause, job\)\);//'
mutant a-job-ends-twice jobs.rs '/pub fn composed/,/^    }/s/self\.jobs\.remove\(&id\);//'
mutant attempts-repeat-after-a-restart attempts.rs 's/\(epoch << 104\) \| \(u128::from\(instance\) << COUNTER_BITS\)/0 * epoch * u128::from(instance)/'
mutant a-stopped-coordinator-leases dispatch.rs 's/self\.is_stopping \|\| //'
mutant nothing-holds-work-back dispatch.rs 's/ \|\| self\.durability\.unstored\(\) > self\.settings\.max_unstored//'
mutant an-attempt-is-recorded-for-every-job engine.rs '/fn note_failed_attempt/,/^    }/s/if job\.is_stored/if !job.is_stored/'
mutant a-lost-worker-keeps-its-leases workers.rs 's/self\.scheduler\.worker_lost\(key, now\.instant\);//'

if [ ${#missed[@]} -gt 0 ]; then
  echo "not found: ${missed[*]}" >&2
  exit 1
fi
