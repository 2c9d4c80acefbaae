#!/usr/bin/env bash
# Plants bugs in the scheduling core and shows that its tests find each of them. Takes some minutes. Options: see mutants.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/mutants.sh

TIMEOUT_SECONDS=120
SCHEDULER=crates/scheduler/src

build() { cargo test --quiet --locked --package scheduler --no-run; }

look() { timeout "$TIMEOUT_SECONDS" cargo test --quiet --locked --package scheduler; }

found_by() {
  local tests
  tests=$(sed -nE "s/^(thread ')?tests::[a-z]+::([a-z_]+)('.*panicked.*| --- FAILED)$/\2/p" "$1" | sort -u)
  printf '%s: %s' "$(grep -c . <<< "$tests")" "$(sed -n 1p <<< "$tests")"
}

prepare mutants "$@"

mutant waiting-never-raises-a-job $SCHEDULER/job.rs 's/level\.saturating_add\(added\)\.min/level.min/'
mutant pause-revokes-no-lease $SCHEDULER/scheduler.rs '/pub fn pause/,/self\.refresh/s/self\.attempts_of\(id\)/Vec::new()/'
mutant loser-of-two-attempts-keeps-its-lease $SCHEDULER/scheduler/outcome.rs '/pub fn complete/,/learn_speed/s/self\.revoke\(rival, Revocation::OutrunBySecondAttempt\);/let _ = rival;/'
mutant memory-is-not-required $SCHEDULER/abilities.rs '/&& memory_bytes\.is_none_or/d'
mutant affinity-key-is-forgotten $SCHEDULER/scheduler/claim.rs 's/self\.workers\.remember\(lane\.worker, key\);/let _ = key;/'
mutant what-failed-waits-in-its-own-line $SCHEDULER/job.rs 's/if self\.tasks\.has_retries\(\) \{ Priority::HIGHEST \} else \{ (self\.spec\.priority) \}/\1/'
mutant outcome-counts-twice $SCHEDULER/scheduler/outcome.rs '/pub fn complete/,/^    }/s/wrapping_add\(outcome\.value\);/wrapping_add(outcome.value).wrapping_add(outcome.value);/'
mutant outcome-of-a-lost-worker-counts $SCHEDULER/scheduler/workers.rs '/pub fn worker_lost/,/^    }/s/for attempt in lost\.held/for attempt in lost.held.into_iter().skip(1)/'
mutant a-job-keeps-its-turn $SCHEDULER/scheduler/claim.rs 's/job\.turn = self\.last_turn;//'
mutant a-killing-task-has-all-its-attempts $SCHEDULER/scheduler/outcome.rs 's/ \|\| run\.kills >= MAX_KILLS//'
mutant a-taken-up-job-starts-from-nothing $SCHEDULER/tasks.rs 's/known\.for_each\(.*open\.remove.*/known.for_each(drop);/'
mutant later-tasks-take-no-longer $SCHEDULER/tasks/slope.rs 's/\(rise > 0\.0\)\.then/false.then/'
mutant a-rest-by-rounding-is-left $SCHEDULER/tasks/slope.rs 's/if takes_rest \{ end - from \} else \{ tasks \}/tasks/'
mutant a-failed-run-is-not-halved $SCHEDULER/tasks.rs 's/run\.len\(\)\.div_ceil\(2\)/run.len()/'
mutant a-lease-never-expires $SCHEDULER/scheduler/timeouts.rs 's/&& expires_at <= now/\&\& expires_at < now - std::time::Duration::from_secs(3600)/'
mutant a-retry-goes-back-to-its-worker $SCHEDULER/tasks.rs 's/!\(is_last && is_held_back/!(false \&\& is_last \&\& is_held_back/'
mutant an-adopted-task-need-not-be-open $SCHEDULER/tasks.rs 's/self\.open\.open_within\(tasks\) \+ returned != len\(tasks\)/false/'
mutant an-adopted-retry-starts-afresh $SCHEDULER/tasks.rs 's/taken\.failures = taken\.failures\.max\(part\.failures\);//'
mutant a-slot-that-finds-nothing-is-offered-again $SCHEDULER/scheduler/claim.rs 's/self\.workers\.note_miss\(lane\.worker, !is_voter\);//'
mutant workers-that-voted-hide-a-run-from-others $SCHEDULER/scheduler/claim.rs 's/lane\.worker, !is_voter/lane.worker, true/'
mutant a-last-task-is-not-offered-again $SCHEDULER/figures.rs 's/ \|\| before\.claimable < self\.claimable//'
mutant new-work-is-no-change $SCHEDULER/scheduler.rs '/if has_more \{/,/\}/s/self\.workers\.note_change\(class\);//'
mutant an-idle-slot-keeps-its-stripe $SCHEDULER/scheduler/idle.rs 's/self\.end_walk\(lane\);//'
mutant a-long-task-waits-for-lower-ones $SCHEDULER/scheduler/choice.rs '/if best\.is_too_long/,/\}/s/return None;//'
mutant a-pulling-worker-hoards $SCHEDULER/scheduler/claim.rs 's/tasks\.min\(open\.div_ceil\(1 \+ .*\)\)\.max\(1\)/tasks.max(1)/'
mutant a-released-task-costs-an-attempt $SCHEDULER/scheduler/outcome.rs '/pub fn release\(/,/^    }/s/(self\.hold_back_released\(.*\);)/\1 record.run.failures += 1;/'
mutant a-time-limit-is-silence $SCHEDULER/scheduler/timeouts.rs 's/record\.limit_at == Some\(expires_at\)/record.limit_at.is_none()/'
mutant a-window-is-never-filled-again $SCHEDULER/queue.rs 's/self\.line_mut\(place\)\.fill_window\(\);//'
mutant a-claim-that-waited-leaves-its-lane $SCHEDULER/scheduler/claim.rs 's/^        if is_pushed \{/        if true {/'
mutant a-lease-that-waits-has-the-time-of-one $SCHEDULER/scheduler/adopt.rs 's/let rounds = .*;/let rounds = 0;/'
mutant busy-slots-of-suspended-workers-count $SCHEDULER/workers/busy.rs 's/\.filter\(\|worker\| worker\.availability == Availability::Active\)//'
mutant a-class-without-workers-is-runnable $SCHEDULER/scheduler/workers.rs 's/self\.figures\.serve\(.*\);//'

report
