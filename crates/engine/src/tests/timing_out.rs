//! Tests of attempts that reached their time limit at an earlier coordinator.

use std::num::NonZeroU32;
use std::time::Duration;

use model::{AttemptId, JobKind};
use store::{Change, ChangeKind, MAX_TIMED_OUT, UnfinishedJob};
use uuid::Uuid;

use super::harness::{Harness, RECOVERY, held, job};
use crate::{Effect, HeldLease, HeldState, LeaseFailure};

const SECOND: Duration = Duration::from_secs(1);

fn attempt(number: u128) -> AttemptId {
    AttemptId(Uuid::from_u128(number))
}

/// A job with a time limit of 20 seconds a task, which has started and whose first task has failed once.
fn limited(grid: &Harness, kind: JobKind, timed_out: Vec<AttemptId>) -> UnfinishedJob {
    let mut stored = grid.stored(1, kind, 2);
    stored.record.started_at = Some(grid.now.at);
    stored.record.options.timeout.task_seconds = NonZeroU32::new(20);
    stored.record.verified.timed_out = timed_out;
    stored.retries = vec![(0..1, 1)];
    stored
}

/// The first or the second attempt, at the task of its number and in a slot of its own.
fn lease(task: u32, age: Duration, state: HeldState) -> HeldLease {
    let first = u64::from(task);
    HeldLease { attempt: attempt(1 + u128::from(task)), job: job(1), tasks: first..first + 1, slot: task, age, state }
}

/// The timed-out attempts that the recorded failures name.
fn timed_out(grid: &mut Harness) -> Vec<Option<AttemptId>> {
    let failure = |effect: Effect| {
        let Effect::Store(Change { kind, .. }) = effect else { return None };
        let (ChangeKind::AttemptFailed { timed_out, .. } | ChangeKind::TasksFailed { timed_out, .. }) = kind else {
            return None;
        };
        Some(timed_out)
    };
    grid.engine.take_effects().into_iter().filter_map(failure).collect()
}

#[test]
fn the_failure_of_an_attempt_names_it_if_it_reached_its_time_limit() {
    let mut grid = Harness::new();
    grid.worker("w", 2, &[]);
    let mut stored = grid.stored(1, JobKind::SLEEP, 2);
    stored.record.options.timeout.task_seconds = NonZeroU32::new(20);
    stored.record.options.max_attempts = NonZeroU32::MIN;
    grid.engine.take_up(stored, grid.now).expect("a job");
    grid.effects();
    let (failed, late) = (grid.attempt(1, 0), grid.attempt(1, 1));
    grid.engine.fail(failed, LeaseFailure::TaskFailed("no".to_owned()), grid.now).expect("leased");
    assert_eq!(timed_out(&mut grid), [None]);
    grid.advance(20 * SECOND);
    grid.engine.handle_timeout(grid.now);
    assert_eq!(timed_out(&mut grid), [Some(late)]);
}

#[test]
fn a_time_limit_that_counts_at_one_coordinator_does_not_count_at_the_next() {
    let mut before = Harness::new();
    let stored = limited(&before, JobKind::SLEEP, Vec::new());
    before.worker("w", 2, &[]);
    before.engine.take_up(stored, before.now).expect("a job");
    before.effects();
    let order = before.order(1, 0);
    before.advance(20 * SECOND);
    before.engine.handle_timeout(before.now);
    let counted: Vec<_> = timed_out(&mut before).into_iter().flatten().collect();
    assert!(counted.contains(&order.attempt));

    let mut grid = Harness::of_epoch(2);
    let stored = limited(&grid, JobKind::SLEEP, counted);
    assert!(grid.engine.recover(vec![stored], grid.now).is_empty());
    let (_, reconciled) = grid.worker("w", 2, &[held(&order, HeldState::Running)]);
    assert_eq!(reconciled.settled, [order.attempt]);
    grid.wait(RECOVERY);
    let failure = LeaseFailure::TaskFailed("no".to_owned());
    grid.engine.fail(grid.attempt(1, 0), failure, grid.now).expect("its task runs once more");
    assert_eq!(grid.effects()[0], "store 1 failed 0..1 2 at w");
}

#[test]
fn an_attempt_that_timed_out_before_is_void_whatever_its_worker_does_with_it() {
    for (age, state) in [
        (Duration::ZERO, HeldState::Running),
        (SECOND, HeldState::Running),
        (20 * SECOND, HeldState::Running),
        (Duration::ZERO, HeldState::Finished),
    ] {
        let mut grid = Harness::of_epoch(2);
        let stored = limited(&grid, JobKind::SLEEP, vec![attempt(1)]);
        assert!(grid.engine.recover(vec![stored], grid.now).is_empty());
        let leases = [lease(0, age, state), lease(1, age, state)];
        let (_, reconciled) = grid.worker("w", 2, &leases);
        assert_eq!(reconciled.settled, [attempt(1)], "{age:?} {state:?}");
        assert!(grid.engine.is_leased(attempt(2)), "{age:?} {state:?}");
    }
}

#[test]
fn a_pulling_worker_does_not_take_an_attempt_up_again_that_timed_out_before() {
    let mut grid = Harness::of_epoch(2);
    let stored = limited(&grid, JobKind::TASKS, vec![attempt(1)]);
    grid.engine.take_up(stored, grid.now).expect("a job");
    let puller = grid.puller("p");
    let pulled = |task| HeldLease { slot: 0, ..lease(task, Duration::ZERO, HeldState::Running) };
    assert!(!grid.engine.adopt_reported(puller, &pulled(0), grid.now));
    assert!(grid.engine.adopt_reported(puller, &pulled(1), grid.now));
}

#[test]
fn a_time_limit_that_has_not_counted_counts_though_its_tasks_have_failed_before() {
    let mut grid = Harness::of_epoch(2);
    let stored = limited(&grid, JobKind::SLEEP, vec![attempt(9)]);
    assert!(grid.engine.recover(vec![stored], grid.now).is_empty());
    grid.worker("w", 2, &[lease(0, 20 * SECOND, HeldState::Running)]);
    assert_eq!(grid.wait(Duration::ZERO), ["stop 0..0 at 1 because TimedOut", "store 1 failed 0..1 2 at w"]);
}

#[test]
fn a_time_limit_that_a_full_list_may_have_lost_does_not_count_again() {
    let mut grid = Harness::of_epoch(2);
    let stored = limited(&grid, JobKind::SLEEP, vec![attempt(9); MAX_TIMED_OUT]);
    assert!(grid.engine.recover(vec![stored], grid.now).is_empty());
    let [failed, other] = [0, 1].map(|task| lease(task, 20 * SECOND, HeldState::Running));
    let (key, reconciled) = grid.worker("w", 2, &[failed.clone(), other]);
    assert_eq!(reconciled.settled, [failed.attempt]);
    let ends = grid.wait(Duration::ZERO);
    assert_eq!(
        ends,
        ["stop 0..0 at 1 because TimedOut", "store 1 failed 1..2 1 at w"],
        "no failure of it was recorded"
    );
    let finished = [HeldLease { state: HeldState::Finished, ..failed }];
    assert_eq!(grid.engine.heartbeat(key, &finished, grid.now).settled, [failed.attempt]);
    grid.wait(RECOVERY);
    let failure = LeaseFailure::TaskFailed("no".to_owned());
    grid.engine.fail(grid.attempt(1, 0), failure, grid.now).expect("its tasks run once more");
    assert_eq!(grid.effects()[0], "store 1 failed 0..1 2 at w");
}
