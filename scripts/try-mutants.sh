#!/usr/bin/env bash
# Plants bugs in the scheduling core, one at a time in a copy of the sources, and shows that its tests find each of them.
# Takes some minutes. With names as arguments, only those.
set -euo pipefail
cd "$(dirname "$0")/.."

COPY=target/mutants/sources
TIMEOUT_SECONDS=120

export CARGO_TARGET_DIR="$PWD/target/mutants/target"
export PROPTEST_FAILURE_PERSISTENCE=off RUST_BACKTRACE=0 RUSTFLAGS='--cap-lints allow'

wanted=("$@")
missed=()

# Name, file below crates/scheduler/src, sed script.
mutant() {
  local name=$1 file=$2 script=$3
  if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $name "* ]]; then return; fi
  local source=crates/scheduler/src/$file output=target/mutants/$name.log
  sed -E "$script" "$source" > "$COPY/$source"
  if cmp -s "$source" "$COPY/$source"; then
    echo "$name: the line to change is not there any more" >&2
    exit 2
  fi
  if ! (cd "$COPY" && cargo test --quiet --locked --package scheduler --no-run) > "$output" 2>&1; then
    echo "$name: does not compile, see $output" >&2
    exit 2
  fi
  if (cd "$COPY" && timeout "$TIMEOUT_SECONDS" cargo test --quiet --locked --package scheduler) > "$output" 2>&1; then
    missed+=("$name")
    printf '%-42s NOT FOUND\n' "$name"
  else
    printf '%-42s found by %s\n' "$name" "$(found_by "$output")"
  fi
  cp "$source" "$COPY/$source"
}

found_by() {
  local tests
  tests=$(sed -nE "s/^(thread ')?tests::[a-z]+::([a-z_]+)('.*panicked.*| --- FAILED)$/\2/p" "$1" | sort -u)
  printf '%s: %s' "$(grep -c . <<< "$tests")" "$(sed -n 1p <<< "$tests")"
}

rm -rf "$COPY"
mkdir -p "$COPY"
git ls-files -z | xargs -0 cp --parents -t "$COPY"
(cd "$COPY" && timeout "$TIMEOUT_SECONDS" cargo test --quiet --locked --package scheduler > ../unchanged.log 2>&1) || {
  echo "the tests fail without any bug, see target/mutants/unchanged.log" >&2
  exit 2
}

mutant waiting-never-raises-a-job job.rs 's/level\.saturating_add\(added\)\.min/level.min/'
mutant pause-revokes-no-lease scheduler.rs '/pub fn pause/,/self\.refresh/s/self\.attempts_of\(id\)/Vec::new()/'
mutant loser-of-two-attempts-keeps-its-lease scheduler/outcome.rs '/pub fn complete/,/learn_speed/s/self\.revoke\(rival, Revocation::OutrunBySecondAttempt\);/let _ = rival;/'
mutant memory-is-not-required abilities.rs '/&& memory_bytes\.is_none_or/d'
mutant affinity-key-is-forgotten scheduler/claim.rs 's/self\.workers\.remember\(lane\.worker, key\);/let _ = key;/'
mutant what-failed-waits-in-its-own-line job.rs 's/if self\.tasks\.has_retries\(\) \{ Priority::HIGHEST \} else \{ (self\.spec\.priority) \}/\1/'
mutant outcome-counts-twice scheduler/outcome.rs 's/job\.total \+= outcome\.value;/job.total += 2 * outcome.value;/'
mutant outcome-of-a-lost-worker-counts scheduler/workers.rs '/pub fn worker_lost/,/^    }/s/for attempt in lost\.held/for attempt in lost.held.into_iter().skip(1)/'
mutant a-job-keeps-its-turn scheduler/claim.rs 's/job\.turn = self\.last_turn;//'
mutant a-killing-task-has-all-its-attempts scheduler/outcome.rs 's/ \|\| run\.kills >= MAX_KILLS//'
mutant a-taken-up-job-starts-from-nothing tasks.rs 's/known\.for_each\(.*open\.remove.*/known.for_each(drop);/'
mutant a-failed-run-is-not-halved tasks.rs 's/run\.len\(\)\.div_ceil\(2\)/run.len()/'
mutant a-lease-never-expires scheduler/timeouts.rs 's/&& expires_at <= now/\&\& expires_at < now - std::time::Duration::from_secs(3600)/'
mutant a-retry-goes-back-to-its-worker tasks.rs 's/!\(is_last && is_held_back/!(false \&\& is_last \&\& is_held_back/'
mutant an-adopted-task-need-not-be-open tasks.rs 's/self\.open\.open_within\(tasks\) \+ returned != len\(tasks\)/false/'
mutant an-adopted-retry-starts-afresh tasks.rs 's/taken\.failures = taken\.failures\.max\(part\.failures\);//'
mutant a-slot-that-finds-nothing-is-offered-again scheduler/claim.rs 's/self\.workers\.note_miss\(lane\.worker\);//'
mutant new-work-is-no-change scheduler.rs '/if has_more \{/,/\}/s/self\.workers\.note_change\(class\);//'
mutant an-idle-slot-keeps-its-stripe scheduler/idle.rs 's/self\.end_walk\(lane\);//'
mutant a-long-task-waits-for-lower-ones scheduler/choice.rs '/if best\.is_too_long/,/\}/s/return None;//'
mutant a-pulling-worker-hoards scheduler/claim.rs 's/tasks\.min\(open\.div_ceil\(slots\.max\(1\)\)\)\.max\(1\)/tasks.max(1)/'
mutant a-released-task-costs-an-attempt scheduler/outcome.rs '/pub fn release/,/^    }/s/record\.run\.releases = releases;/record.run.releases = releases; record.run.failures += 1;/'
mutant a-time-limit-is-silence scheduler/timeouts.rs 's/record\.limit_at == Some\(expires_at\)/record.limit_at.is_none()/'
mutant a-window-is-never-filled-again queue.rs 's/self\.line_mut\(place\)\.fill_window\(\);//'
mutant a-class-without-workers-is-runnable scheduler/workers.rs 's/self\.figures\.serve\(.*\);/let _ = open;/'

if [ ${#missed[@]} -gt 0 ]; then
  echo "not found: ${missed[*]}" >&2
  exit 1
fi
