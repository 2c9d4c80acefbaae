#!/usr/bin/env bash
# Plants bugs in who leads and what a leader may do, and shows that some hundred simulated seeds of several coordinators or the
# tests of the part find each of them. Options: see mutants.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/mutants.sh

TIMEOUT_SECONDS=300
SEEDS=${SEEDS:-0..300}

build() { cargo build --quiet --locked --package simulation; }

look() {
  timeout "$TIMEOUT_SECONDS" "$CARGO_TARGET_DIR/debug/simulation" --shared --seeds "$SEEDS" --jobs 2 &&
    timeout "$TIMEOUT_SECONDS" cargo test --quiet --locked --package engine --lib candidacy &&
    timeout "$TIMEOUT_SECONDS" cargo test --quiet --locked --package store --all-features --lib memory
}

found_by() { found_by_seed_or_test "$1"; }

prepare ownership-mutants "$@"

CANDIDACY=crates/engine/src/candidacy.rs
SHARED=crates/store/src/memory/shared.rs
APPLY=crates/store/src/memory/apply.rs
RECOVERY=crates/engine/src/recovery.rs

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
mutant nothing-is-held-after-a-takeover $RECOVERY 's/let is_held = \(holds_all .*;/let is_held = false;/'
mutant any-list-is-complete $RECOVERY 's/if seen_epoch >= self\.settings\.epoch \&\& /if seen_epoch < u64::MAX \&\& /'
mutant lists-are-not-waited-for $RECOVERY 's/if self\.awaited\.is_empty\(\) \{/if !self.awaited.is_empty() {/'
mutant the-last-list-ends-no-wait $RECOVERY 's/ \&\& self\.awaited\.remove\(worker\) \&\& self\.awaited\.is_empty\(\)/ \&\& self.awaited.remove(worker) \&\& self.awaited.len() > 9/'
mutant attempts-repeat-their-ids crates/engine/src/attempts.rs 's/let prefix = .*;/let prefix = 0 * (epoch + u128::from(instance));/'

report
