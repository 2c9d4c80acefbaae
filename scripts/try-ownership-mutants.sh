#!/usr/bin/env bash
# Plants bugs in who leads and what a leader may do, one at a time in a copy of the sources, and shows that some hundred
# simulated seeds of several coordinators, or the tests of the part, find each of them. With names as arguments, only those.
set -euo pipefail
cd "$(dirname "$0")/.."

COPY=target/ownership-mutants/sources
TIMEOUT_SECONDS=300
SEEDS=${SEEDS:-0..300}

export CARGO_TARGET_DIR="$PWD/target/ownership-mutants/target"
export RUST_BACKTRACE=0 RUSTFLAGS='--cap-lints allow'

wanted=("$@")
missed=()

simulate() {
  (cd "$COPY" && cargo build --quiet --locked --package simulation &&
    timeout "$TIMEOUT_SECONDS" "$CARGO_TARGET_DIR/debug/simulation" --shared --seeds "$SEEDS" --jobs 2)
}

run_tests() {
  (cd "$COPY" && timeout "$TIMEOUT_SECONDS" cargo test --quiet --locked --package engine --lib candidacy &&
    timeout "$TIMEOUT_SECONDS" cargo test --quiet --locked --package store --all-features --lib memory)
}

# Name, file, sed script.
mutant() {
  local name=$1 source=$2 script=$3
  if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $name "* ]]; then return; fi
  local output=target/ownership-mutants/$name.log
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
  if ! simulate >> "$output" 2>&1; then
    printf '%-42s found by %s\n' "$name" "$(grep -m1 'fails at step' "$output" | cut -c1-110)"
  elif ! run_tests >> "$output" 2>&1; then
    printf '%-42s found by %s\n' "$name" "$(sed -nE 's/^    ([a-z_:]+)$/\1/p' "$output" | sed -n 1p)"
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
  simulate > target/ownership-mutants/unchanged.log 2>&1 || {
    echo "seeds fail without any bug, see target/ownership-mutants/unchanged.log" >&2
    exit 2
  }
fi

CANDIDACY=crates/engine/src/candidacy.rs
SHARED=crates/store/src/memory/shared.rs
APPLY=crates/store/src/memory/apply.rs
JOBS=crates/engine/src/jobs.rs

mutant trust-counts-from-the-answer $CANDIDACY '/LeaseAnswer::(Taken|Renewed) \{/s/trusted_until\(asked_at, lasts\)/trusted_until(now, lasts)/'
mutant a-lease-is-trusted-too-long $CANDIDACY 's/lasts\.saturating_sub\(MARGIN\)/lasts * 2/'
mutant a-lost-lease-is-kept $CANDIDACY 's/LeaseAnswer::Lost => self\.end\(now\),/LeaseAnswer::Lost => None,/'
mutant silence-ends-no-term $CANDIDACY 's/Some\(_\) => self\.end\(now\),/Some(_) => None,/'
mutant a-late-renewal-revives-a-term $CANDIDACY 's/if held\.until <= now \{/if false {/'
mutant a-late-answer-begins-a-term $CANDIDACY 's/if until <= now \|\| self\.is_retired \{/if self.is_retired {/'
mutant a-retired-coordinator-leads-again $CANDIDACY 's/if until <= now \|\| self\.is_retired \{/if until <= now {/'
mutant nobody-asks-again $CANDIDACY 's/self\.due = now \+ WATCH_INTERVAL\.min\(.*\);/self.due = now + 100 * STAND_BACK;/'
mutant a-held-lease-is-taken $SHARED 's/\.filter\(\|left\| !left\.is_zero\(\)\)/.filter(|left| *left > LEASE)/'
mutant an-expired-lease-is-renewed $SHARED 's/current == epoch \&\& \*expires_at > now/current == epoch/'
mutant a-takeover-keeps-the-epoch $SHARED 's/let epoch = state\.next_epoch\(\);/let epoch = if state.epoch().0 == 0 { state.next_epoch() } else { state.epoch() };/'
mutant a-lease-of-another-epoch-is-renewed $SHARED 's/Some\(\(_, expires_at\)\) if current == epoch \&\& /Some((_, expires_at)) if /'
mutant an-earlier-epoch-writes $APPLY 's/if batch\.epoch != self\.epoch\(\) \{/if false {/'
mutant a-batch-counts-twice $APPLY 's/Some\(\(id, applied\)\) if \*id == batch\.id =>/Some((id, applied)) if *id == u64::MAX \&\& batch.id == 0 =>/'
mutant nothing-is-held-after-a-takeover $JOBS 's/let is_held = \(holds_all .*;/let is_held = false;/'
mutant any-list-is-complete $JOBS 's/if seen_epoch >= self\.settings\.epoch \&\& /if seen_epoch < u64::MAX \&\& /'
mutant lists-are-not-waited-for $JOBS 's/if self\.awaited\.is_empty\(\) \{/if !self.awaited.is_empty() {/'
mutant the-last-list-ends-no-wait $JOBS 's/ \&\& self\.awaited\.remove\(worker\) \&\& self\.awaited\.is_empty\(\)/ \&\& self.awaited.remove(worker) \&\& self.awaited.len() > 9/'
mutant attempts-repeat-their-ids crates/engine/src/attempts.rs 's/let prefix = .*;/let prefix = 0 * (epoch + u128::from(instance));/'

if [ ${#missed[@]} -gt 0 ]; then
  echo "${#missed[@]} bugs are not found: ${missed[*]}" >&2
  exit 1
fi
