//! Tests of claims and of the outcomes that count.

use std::time::Duration;

use super::harness::{
    Harness, MAX_ATTEMPTS, POLICY, TASK_TIME, job, lane, no_such_attempt, revoked, slots, spec, worker,
};
use crate::{AttemptFailure, ComputedValue, JobSpec, Lane, Lease, LeaseSize, Revocation, StaleAttempt};

#[test]
fn an_outcome_counts_once() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 10);
    let lease = grid.claim(1).expect("task 0");
    grid.complete(&lease).expect("leased");
    assert_eq!(grid.complete(&lease), Err(StaleAttempt));
    assert_eq!(grid.fail(&lease), Err(StaleAttempt));
    assert_eq!(grid.scheduler.release(lease.attempt, grid.now), Err(StaleAttempt));
    let nobodys = ComputedValue { value: 1, busy: TASK_TIME };
    assert_eq!(grid.scheduler.complete(no_such_attempt(), nobodys), Err(StaleAttempt));
    assert_eq!(grid.done(1), Some(1));
}

#[test]
fn expired_lease_requeues_the_task_first() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 10);
    let lease = grid.claim(1).expect("task 0");
    assert_eq!(grid.scheduler.poll_timeout(), Some(lease.expires_at));
    grid.wait(POLICY.lease_timeout);
    assert_eq!(grid.ends(), [revoked(&lease, 1, Revocation::Expired)]);
    assert_eq!(grid.complete(&lease), Err(StaleAttempt));
    assert_eq!(grid.claim_tasks(2), Some((job(1), 0..1)));
}

#[test]
fn a_lease_that_was_expected_to_be_long_expires_later() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 100);
    let lease = grid.claim(1).expect("task 0");
    let hour = ComputedValue { value: 1, busy: Duration::from_hours(1) };
    grid.scheduler.complete(lease.attempt, hour).expect("leased");
    let next = grid.claim(1).expect("task 1");
    assert_eq!(next.tasks, 1..2);
    assert_eq!(next.expires_at, grid.now + POLICY.lease_timeout + 10 * Duration::from_hours(1));
}

#[test]
fn a_failed_task_is_retried_on_another_worker_while_there_is_one() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 1);
    let lease = grid.claim(1).expect("task 0");
    grid.fail(&lease).expect("leased");
    assert_eq!(grid.claim(1), None);
    assert_eq!(grid.claim_tasks(2), Some((job(1), 0..1)));
}

#[test]
fn a_lone_worker_retries_its_own_failed_task() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 1);
    let lease = grid.claim(1).expect("task 0");
    grid.fail(&lease).expect("leased");
    grid.scheduler.worker_lost(worker(2), grid.now);
    assert_eq!(grid.claim_tasks(1), Some((job(1), 0..1)));
}

#[test]
fn a_failed_run_is_retried_by_halves() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 1000);
    for _ in 0..2 {
        let lease = grid.claim(1).expect("tasks");
        grid.complete(&lease).expect("leased");
    }
    let run = grid.claim(1).expect("a full lease");
    assert_eq!(run.tasks, 9..19);
    grid.fail(&run).expect("leased");
    assert_eq!(grid.claim_tasks(2), Some((job(1), 9..14)));
    assert_eq!(grid.claim_tasks(2), Some((job(1), 14..17)));
}

#[test]
fn what_a_retired_worker_hands_back_does_not_count_as_an_attempt() {
    let mut grid = Harness::new();
    grid.submit(1, 1);
    for number in 1..=2 * u64::from(MAX_ATTEMPTS) {
        grid.join(number, slots(1));
        let lease = grid.claim(number).expect("task 0");
        grid.scheduler.worker_retired(worker(number), grid.now);
        grid.scheduler.release(lease.attempt, grid.now).expect("leased");
    }
    assert_eq!(grid.ends(), []);
    assert_eq!(grid.scheduler.counts().pending, 1);
}

#[test]
fn what_a_retired_worker_loses_does_not_count_as_an_attempt() {
    let mut grid = Harness::new();
    grid.submit(1, 1);
    for number in 1..=2 * u64::from(MAX_ATTEMPTS) {
        grid.join(number, slots(1));
        let lease = grid.claim(number).expect("task 0");
        grid.scheduler.worker_retired(worker(number), grid.now);
        grid.scheduler.fail(lease.attempt, AttemptFailure::WorkerLost, grid.now).expect("leased");
    }
    assert_eq!(grid.ends(), []);
    assert_eq!(grid.scheduler.counts().pending, 1);
}

#[test]
fn a_busy_slot_gets_one_ahead_only_while_enough_is_left_for_every_slot() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 2);
    assert_eq!(grid.claim_tasks(1), Some((job(1), 0..1)));
    assert_eq!(grid.claim(1), None, "the other worker idles");
    assert_eq!(grid.claim_tasks(2), Some((job(1), 1..2)));
    grid.submit(2, 3);
    assert_eq!(grid.claim_tasks(1), Some((job(2), 0..1)));
}

#[test]
fn leases_carry_about_the_target_of_work_and_shrink_at_the_end() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 100);
    let mut sizes = Vec::new();
    for _ in 0..100 {
        let Some(lease) = grid.claim(1) else { break };
        sizes.push(lease.tasks.end - lease.tasks.start);
        grid.complete(&lease).expect("leased");
    }
    assert_eq!(sizes, [1, 8, 10, 10, 10, 10, 10, 10, 10, 6, 6, 3, 3, 1, 1, 1]);
    assert_eq!(sizes.iter().sum::<u64>(), 100);
}

#[test]
fn nothing_is_given_ahead_of_a_task_that_takes_long() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 10);
    let lease = grid.claim(1).expect("task 0");
    grid.complete_after(&lease, Duration::from_secs(60)).expect("leased");
    grid.claim(1).expect("task 1");
    assert_eq!(grid.claim(1), None);
}

#[test]
fn tasks_that_a_lease_is_shortened_by_are_open_again_and_were_not_tried() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 10);
    let lease = grid.claim_for(lane(1), LeaseSize::AtMost(8)).expect("active").expect("tasks");
    let attempt = lease.attempt;
    assert_eq!(lease.tasks, 0..8);
    assert_eq!(grid.scheduler.shorten(attempt, 0), Ok(false), "a lease has a task");
    assert_eq!(grid.scheduler.shorten(attempt, 3), Ok(true));
    grid.scheduler.check();
    grid.complete(&Lease { tasks: 0..3, ..lease }).expect("leased");
    let rest = grid.claim_for(lane(2), LeaseSize::AtMost(10)).expect("active").expect("the others");
    assert_eq!(rest.tasks, 3..10);
    grid.complete(&rest).expect("leased");
    assert_eq!(grid.ends().len(), 1);
    assert_eq!(grid.scheduler.shorten(attempt, 1), Err(StaleAttempt));
}

#[test]
fn the_rest_of_a_lease_that_its_worker_gives_up_goes_to_others_first_and_was_not_tried() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 10);
    let lease = grid.claim_for(lane(1), LeaseSize::AtMost(8)).expect("active").expect("tasks");
    let attempt = lease.attempt;
    assert_eq!(grid.scheduler.release_rest(attempt, 0, grid.now), Ok(false), "a lease has a task");
    assert_eq!(grid.scheduler.release_rest(attempt, 3, grid.now), Ok(true));
    for repeated in [3, 5, 8] {
        assert_eq!(grid.scheduler.release_rest(attempt, repeated, grid.now), Ok(true));
    }
    grid.scheduler.check();
    let next = grid.claim_for(lane(1), LeaseSize::AtMost(10)).expect("active").expect("the others");
    assert_eq!(next.tasks, 8..10, "the rest is held back from the worker that gave it up");
    let rest = grid.claim_for(lane(2), LeaseSize::AtMost(10)).expect("active").expect("the rest");
    assert_eq!(rest.tasks, 3..8);
    grid.complete(&Lease { tasks: 0..3, ..lease }).expect("leased");
    for other in [next, rest] {
        grid.complete(&other).expect("leased");
    }
    grid.scheduler.check();
    assert_eq!(grid.ends().len(), 1);
    assert_eq!(grid.scheduler.release_rest(attempt, 1, grid.now), Err(StaleAttempt));
}

#[test]
fn a_worker_that_pulls_leaves_nothing_behind_where_its_claims_have_waited() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 200);
    for slot in 0..100 {
        // A claim that waits has a lane of its own.
        let waiting = Lane { slot, ..lane(1) };
        let lease = grid.claim_for(waiting, LeaseSize::AtMost(1)).expect("active").expect("a task");
        grid.complete(&lease).expect("leased");
    }
    assert_eq!(grid.scheduler.walking(), 0);
}

#[test]
fn a_worker_that_pulls_renews_its_lease_whatever_the_time_limit_of_the_tasks() {
    let mut grid = Harness::with_workers(1);
    let half = POLICY.lease_timeout / 2;
    grid.submit_spec(1, JobSpec { task_timeout: Some(half * 4), max_lease_tasks: 1, ..spec(2) });
    let claim = |grid: &mut Harness| grid.claim_for(lane(1), LeaseSize::AtMost(1)).expect("active").expect("a task");
    let (renewed, silent) = (claim(&mut grid), claim(&mut grid));
    assert_eq!(silent.expires_at, grid.now + half * 2);
    grid.wait(half);
    assert_eq!(grid.scheduler.renew(renewed.attempt, grid.now), Ok(grid.now + half * 2));
    grid.wait(half);
    assert_eq!(grid.ends(), [revoked(&silent, 1, Revocation::Expired)]);
    assert_eq!(grid.scheduler.renew(renewed.attempt, grid.now), Ok(grid.now + half * 2));
    grid.wait(half);
    assert_eq!(grid.scheduler.renew(renewed.attempt, grid.now), Ok(grid.now + half), "its time limit");
    grid.scheduler.check();
    grid.wait(half);
    assert_eq!(grid.ends(), [revoked(&renewed, 1, Revocation::TimedOut)]);
}

#[test]
fn what_never_came_to_its_worker_was_not_tried() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 1);
    for _ in 0..2 * MAX_ATTEMPTS {
        let lease = grid.claim(1).expect("task 0");
        grid.scheduler.undeliverable(lease.attempt).expect("leased");
    }
    assert_eq!(grid.ends(), []);
    assert_eq!(grid.scheduler.undeliverable(no_such_attempt()), Err(StaleAttempt));
}

#[test]
fn what_a_worker_has_shown_on_one_job_sizes_the_first_lease_of_the_next_of_its_class() {
    let mut grid = Harness::with_workers(1);
    let estimated = |tasks, estimate| JobSpec { task_estimate: Some(estimate), ..spec(tasks) };
    grid.submit_spec(1, estimated(2, TASK_TIME));
    for _ in 0..2 {
        let lease = grid.claim(1).expect("a task");
        grid.complete_after(&lease, TASK_TIME * 2).expect("leased");
    }
    grid.submit_spec(2, estimated(10_000, TASK_TIME / 2));
    assert_eq!(grid.claim_tasks(1), Some((job(2), 0..10)), "twice the estimate, as before");
    grid.scheduler.worker_lost(worker(1), grid.now);
    grid.join(2, slots(1));
    grid.scheduler.cancel(job(2)).expect("it waits");
    grid.submit_spec(3, estimated(10_000, TASK_TIME / 2));
    assert_eq!(grid.claim_tasks(2), Some((job(3), 0..5)), "the machine is not known: four times the estimate");
}
