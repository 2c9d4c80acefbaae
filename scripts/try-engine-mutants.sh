#!/usr/bin/env bash
# Plants bugs in the engine and shows that some hundred simulated seeds or its tests find each of them. Options: see mutants.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/mutants.sh

TIMEOUT_SECONDS=300
SEEDS=${SEEDS:-0..400}
ENGINE=crates/engine/src
SCHEDULER=crates/scheduler/src/scheduler

build() { cargo build --quiet --locked --package simulation; }

look() {
  timeout "$TIMEOUT_SECONDS" "$CARGO_TARGET_DIR/debug/simulation" --seeds "$SEEDS" --jobs 2 &&
    timeout "$TIMEOUT_SECONDS" cargo test --quiet --locked --package engine --lib
}

found_by() { found_by_seed_or_test "$1"; }

prepare engine-mutants "$@"

mutant an-outcome-is-settled-too-early $ENGINE/durability.rs 's/\*change <= self\.stored/*change <= self.stored + 2/'
mutant an-outcome-is-never-pending $ENGINE/durability.rs 's/self\.pending\.contains\(&attempt\)/false \&\& self.pending.contains(\&attempt)/'
mutant a-failure-is-adopted-again $ENGINE/reconcile.rs 's/ \|\| self\.voided\.contains\(lease\.attempt\)//'
mutant a-time-limit-counts-at-two-coordinators $ENGINE/reconcile.rs 's/self\.has_timed_out_before\(lease, begun_at, now\)/false/'
mutant a-pending-outcome-is-void $ENGINE/reconcile.rs '/pub\(crate\) fn reconcile/,/^    }/s/if self\.is_unsettled\(lease\.attempt\) \{/if false {/'
mutant a-broken-connection-is-forgotten $ENGINE/leases.rs '/pub fn connection_broke/,/^    }/s/worker\.detached\.insert\(attempt, 0\);//'
mutant one-heartbeat-gives-a-lease-up $ENGINE/reconcile.rs 's/const MISSES: u32 = 2;/const MISSES: u32 = 1;/'
mutant a-listed-lease-is-not-renewed $ENGINE/reconcile.rs 's/\(true, HeldState::Running\) => drop\(.*\),/(true, HeldState::Running) => (),/'
mutant outcomes-are-not-asked-for $ENGINE/reconcile.rs 's/reconciled\.deliver\.push\(lease\.attempt\)/()/'
mutant void-leases-are-not-settled $ENGINE/reconcile.rs 's/\(false, _\) => reconciled\.settled\.push\(lease\.attempt\),/(false, _) => (),/'
mutant an-adopted-lease-takes-no-slot $ENGINE/reconcile.rs 's/self\.occupy\(lane\);//'
mutant leases-are-adopted-in-any-order $ENGINE/reconcile.rs 's/oldest_first\.sort_by_key\(.*\);//'
mutant an-adopted-lease-keeps-what-follows $ENGINE/reconcile.rs 's/self\.scheduler\.end_walk\(lane\);//'
mutant a-hold-never-ends $ENGINE/engine.rs 's/self\.end_recovery\(\);//'
mutant nothing-is-held-after-a-restart $ENGINE/recovery.rs 's/\(holds_all \|\| has_started\)/holds_all/'
mutant an-ended-lease-keeps-its-slot $ENGINE/slots.rs '/pub\(crate\) fn vacate/,/^    }/s/slot\.leases = slot\.leases\.saturating_sub\(1\);//'
mutant three-leases-at-a-slot $ENGINE/slots.rs 's/leases < most \&\& may_fill/leases <= most \&\& may_fill/'
mutant a-head-start-outlives-its-worker $ENGINE/workers.rs 's/self\.end_head_starts_of\(key\);//'
mutant a-pause-outlives-its-worker $ENGINE/workers.rs 's/self\.end_pause_of\(key\);//'
mutant no-head-start $ENGINE/slots.rs 's/ && !has_head_start//'
mutant a-suspended-worker-never-comes-back $ENGINE/standing.rs 's/self\.scheduler\.worker_resumed\(key\);//'
mutant one-job-suspends-for-a-pause $ENGINE/standing.rs 's/worker\.failed_jobs\.len\(\) > 1/worker.failed_jobs.len() > 0/'
mutant a-draining-worker-gets-more $ENGINE/standing.rs 's/self\.scheduler\.worker_retired\(key, now\.instant\);//'
mutant a-waiting-claim-outlives-its-worker $ENGINE/workers.rs 's/self\.claims\.forget_worker\(key\);//'
mutant an-answered-claim-waits-on $ENGINE/claims.rs '/fn lease_to_claim/,/^    }/s/self\.claims\.remove\(id\);//'
mutant a-canceled-composition-ends-its-job $ENGINE/composing.rs 's/if !progress\.is_canceled \{/if true {/'
mutant a-composition-is-not-counted $ENGINE/composing.rs 's/self\.running -= 1;//'
mutant a-failed-composition-is-not-repeated $ENGINE/composing.rs 's/self\.retries\.insert\(\(now \+ pause, job\)\);//'
mutant a-job-ends-twice $ENGINE/jobs.rs '/pub fn composed/,/^    }/s/self\.remove\(id\);//'
mutant attempts-repeat-after-a-restart $ENGINE/attempts.rs 's/\(epoch << 104\) \| \(u128::from\(instance\) << COUNTER_BITS\)/0 * epoch * u128::from(instance)/'
mutant a-stopped-coordinator-leases $ENGINE/dispatch.rs 's/self\.is_stopping \|\| //'
mutant nothing-holds-work-back $ENGINE/dispatch.rs 's/ \|\| self\.durability\.unstored\(\) > self\.settings\.max_unstored//'
mutant an-attempt-is-recorded-for-every-job $ENGINE/engine.rs '/fn note_failed_attempt/,/^    }/s/if job\.is_stored/if !job.is_stored/'
mutant a-lost-worker-keeps-its-leases $ENGINE/workers.rs 's/self\.scheduler\.worker_lost\(key, now\.instant\);//'
mutant a-lease-that-is-handed-back-counts $ENGINE/leases.rs 's/LeaseFailure::HandedBack => self\.scheduler\.release\(attempt, now\.instant\)\?/LeaseFailure::HandedBack => self.scheduler.fail(attempt, AttemptFailure::Expired, now.instant)?/'
mutant a-time-limit-comes-too-early $SCHEDULER/claim.rs 's/\|limit\| times\(limit, tasks\)\.saturating_add/|limit| (times(limit, tasks) \/ 2).saturating_add/'
mutant a-time-limit-passes-before-its-lease-runs $SCHEDULER/claim.rs 's/let is_limited_later = .*;/let is_limited_later = false;/'
mutant a-time-limit-never-begins $ENGINE/leases.rs 's/self\.scheduler\.begin_limits\(lane, now\.instant\);//'
mutant a-time-limit-begins-too-late $ENGINE/leases.rs 's/^        self\.slot_goes_on\(\&lease, now\);$//'
mutant a-waiting-lease-is-timed-out $ENGINE/reconcile.rs 's/self\.note_orders\(key, held, now\);//'
mutant an-overtaken-lease-is-timed-out $ENGINE/leases.rs 's/self\.scheduler\.note_overtaken\(.*\);//'
mutant an-overtaking-lease-has-the-time-of-two $SCHEDULER/limits.rs 's/\.filter\(\|_\| has_waited\)/.filter(|_| false \&\& has_waited)/'
mutant a-value-of-other-tasks-counts $ENGINE/named.rs 's/named\.tasks == held\.tasks/named.tasks.start == held.tasks.start/'
mutant tasks-that-a-report-does-not-name-stay $ENGINE/named.rs 's/is_longer \&\& self\.release_rest/is_longer \&\& false \&\& self.release_rest/'
mutant a-late-renewal-costs-an-attempt $SCHEDULER/timeouts.rs 's/if record\.is_silent \{/if false {/'
mutant a-silent-worker-costs-no-attempt $ENGINE/named.rs 's/self\.scheduler\.note_report\(attempt\);//'
mutant second-attempts-follow-each-other-for-ever $SCHEDULER/claim.rs 's/is_others \&\& may_both_fail \&\&/is_others \&\&/'
mutant a-failure-counts-as-two $SCHEDULER/outcome.rs 's/^        run\.failures \+= 1;/        run.failures += 2;/'
mutant a-shortened-lease-keeps-its-tasks $SCHEDULER/outcome.rs 's/^        record\.run\.tasks\.end = beyond;$//'
mutant undelivered-tasks-are-lost $SCHEDULER/outcome.rs '/pub fn shorten/,/^    }/s/self\.job_mut\(id\)\.tasks\.give_back\(rest\);/drop(rest);/'
mutant the-rest-goes-back-to-its-worker $SCHEDULER/outcome.rs '/pub fn release_rest/,/^    }/s/if !is_retired \{/if false {/'
mutant a-lease-goes-back-to-its-worker $SCHEDULER/outcome.rs '/pub fn release\(/,/^    }/s/if !is_retired/if false \&\& !is_retired/'
mutant a-repeated-hand-back-is-refused $SCHEDULER/outcome.rs 's/record\.run\.tasks\.end <= beyond\)/record.run.tasks.end < beyond)/'
mutant one-of-two-attempts-is-divided $SCHEDULER/outcome.rs 's/record\.rival\.is_some\(\) \|\| record\.run\.is_contested\(\)/record.run.is_contested()/'
mutant a-task-of-a-worker-is-skipped $ENGINE/skipping.rs 's/&\(\*task\.\.task\.saturating_add\(1\)\)\)\.unwrap_or\(false\)/\&(*task..task.saturating_add(1))).is_ok()/'
mutant a-skipped-task-is-not-recorded $ENGINE/skipping.rs 's/if !live\.is_stored/if live.is_stored/'
mutant a-job-goes-on-without-tasks $SCHEDULER/outcome.rs '/pub fn skip/,/^    }/s/self\.end_if_over\(id\);//'
mutant a-last-task-does-not-wait-for-all crates/scheduler/src/tasks.rs 's/self\.done == self\.total - 1/self.done + 2 >= self.total/'

report
