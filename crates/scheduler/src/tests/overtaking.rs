//! Tests of leases of one slot that run in another order than they were given, and of adopted leases that nobody runs.

use std::time::Duration;

use super::harness::{Harness, MAX_ATTEMPTS, POLICY, job, lane, revoked, spec, worker};
use crate::{JobSpec, Lease, OnExhausted, Revocation};

const SECOND: Duration = Duration::from_secs(1);
const FIRST_LIMIT: Duration = Duration::from_secs(10);
const SECOND_LIMIT: Duration = Duration::from_secs(30);

/// A slot with two leases of one task each, the first of which has the limit of ten seconds, the second that of thirty.
fn two_leases(grid: &mut Harness) -> (Lease, Lease) {
    let timed = |limit| JobSpec { task_timeout: Some(limit), max_lease_tasks: 1, ..spec(2) };
    grid.submit_spec(1, JobSpec { tasks: 1, ..timed(FIRST_LIMIT) });
    let first = grid.claim(1).expect("a task");
    grid.wait(Duration::from_millis(1));
    grid.submit_spec(2, timed(SECOND_LIMIT));
    let second = grid.claim(1).expect("a task, ahead");
    assert_eq!((first.job, second.job), (job(1), job(2)));
    (first, second)
}

#[test]
fn the_time_limits_of_two_leases_of_a_slot_follow_the_order_in_which_their_worker_runs_them() {
    let mut grid = Harness::with_workers(1);
    let (first, second) = two_leases(&mut grid);
    let begun_at = grid.now;
    grid.wait(SECOND);
    for _ in 0..2 {
        grid.scheduler.note_order(second.attempt, begun_at, first.attempt, grid.now);
        grid.scheduler.check();
        assert_eq!(grid.scheduler.renew(second.attempt, grid.now), Ok(begun_at + SECOND_LIMIT));
        assert_eq!(grid.scheduler.renew(first.attempt, grid.now), Ok(begun_at + SECOND_LIMIT + FIRST_LIMIT));
    }
    grid.wait(SECOND_LIMIT - SECOND);
    assert_eq!(grid.ends(), [revoked(&second, 1, Revocation::TimedOut)]);
    grid.wait(FIRST_LIMIT - SECOND);
    assert!(grid.scheduler.holds(first.attempt), "it has run for nine of its ten seconds");
    grid.wait(SECOND);
    assert_eq!(grid.ends().first(), Some(&revoked(&first, 1, Revocation::TimedOut)));
}

#[test]
fn a_lease_that_was_overtaken_has_its_time_from_the_end_of_the_other_one_on() {
    let mut grid = Harness::with_workers(1);
    let (first, second) = two_leases(&mut grid);
    let begun_at = grid.now;
    grid.wait(SECOND);
    grid.scheduler.note_order(second.attempt, begun_at, first.attempt, grid.now);
    grid.wait(SECOND);
    let claimed_at = grid.scheduler.lease(second.attempt).expect("leased").claimed_at;
    grid.complete(&second).expect("leased");
    grid.scheduler.slot_goes_on(lane(1), claimed_at, grid.now);
    grid.scheduler.note_overtaken(lane(1), claimed_at, grid.now);
    assert_eq!(grid.scheduler.renew(first.attempt, grid.now), Ok(grid.now + FIRST_LIMIT));
    grid.scheduler.check();
}

#[test]
fn an_outcome_of_the_later_lease_of_a_slot_shows_that_the_earlier_one_begins_only_then() {
    let mut grid = Harness::with_workers(1);
    let (first, second) = two_leases(&mut grid);
    let claimed_at = grid.now;
    grid.wait(FIRST_LIMIT - SECOND);
    grid.complete(&second).expect("leased");
    grid.scheduler.slot_goes_on(lane(1), claimed_at, grid.now);
    grid.scheduler.note_overtaken(lane(1), claimed_at, grid.now);
    grid.scheduler.check();
    let until = grid.now + FIRST_LIMIT;
    assert_eq!(grid.scheduler.renew(first.attempt, grid.now), Ok(until));
    // A lease that never came to its worker is overtaken by all that follow.
    grid.wait(SECOND);
    let third = grid.claim(1).expect("a task, ahead");
    let claimed_at = grid.now;
    grid.wait(SECOND);
    grid.complete(&third).expect("leased");
    grid.scheduler.note_overtaken(lane(1), claimed_at, grid.now);
    assert_eq!(grid.scheduler.renew(first.attempt, grid.now), Ok(until));
}

#[test]
fn a_lease_that_waits_for_one_without_a_limit_after_all_has_its_time_from_that_one_s_end_on() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, JobSpec { task_timeout: Some(FIRST_LIMIT), ..spec(1) });
    let first = grid.claim(1).expect("a task");
    grid.wait(Duration::from_millis(1));
    grid.submit(2, 2);
    let open = grid.claim(1).expect("a task, ahead");
    grid.wait(SECOND);
    grid.scheduler.note_order(open.attempt, grid.now - SECOND, first.attempt, grid.now);
    grid.scheduler.check();
    for _ in 0..10 {
        grid.wait(FIRST_LIMIT);
        for attempt in [first.attempt, open.attempt] {
            assert_eq!(grid.scheduler.renew(attempt, grid.now), Ok(grid.now + POLICY.lease_timeout));
        }
    }
    grid.complete(&open).expect("leased");
    grid.scheduler.begin_limits(lane(1), grid.now);
    assert_eq!(grid.scheduler.renew(first.attempt, grid.now), Ok(grid.now + FIRST_LIMIT));
    grid.scheduler.check();
}

#[test]
fn a_limit_that_began_anew_stays_where_the_order_becomes_known_later() {
    let mut grid = Harness::with_workers(1);
    let (first, second) = two_leases(&mut grid);
    let begun_at = grid.now;
    grid.wait(SECOND);
    grid.scheduler.restart_limits_of_slot(second.attempt, grid.now).expect("leased");
    let until = grid.scheduler.renew(second.attempt, grid.now).expect("leased");
    grid.scheduler.note_order(second.attempt, begun_at, first.attempt, grid.now);
    assert_eq!(grid.scheduler.renew(second.attempt, grid.now), Ok(until));
    assert_eq!(grid.scheduler.renew(first.attempt, grid.now), Ok(until + FIRST_LIMIT));
}

#[test]
fn an_adopted_lease_of_which_nothing_is_heard_costs_no_attempt() {
    for limit in [None, Some(POLICY.lease_timeout / 2)] {
        let mut grid = Harness::with_workers(1);
        let individual = JobSpec { on_exhausted: OnExhausted::SkipTask, task_timeout: limit, ..spec(1) };
        grid.submit_spec(1, individual);
        for _ in 0..=MAX_ATTEMPTS {
            let attempt = grid.next_attempt();
            let now = grid.now;
            let lease = grid.scheduler.adopt(lane(1), attempt, job(1), 0..1, Some(now), now).expect("an open task");
            grid.scheduler.demand_renewals(attempt, now).expect("leased");
            grid.scheduler.check();
            grid.wait(limit.unwrap_or(POLICY.lease_timeout));
            assert_eq!(grid.ends(), [revoked(&lease, 1, Revocation::Expired)], "{limit:?}");
            grid.scheduler.check();
        }
        assert_eq!(grid.scheduler.counts().pending, 1);
    }
}

#[test]
fn an_adopted_lease_whose_worker_falls_silent_after_a_report_costs_an_attempt() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, JobSpec { max_attempts: 1, ..spec(1) });
    let (attempt, now) = (grid.next_attempt(), grid.now);
    grid.scheduler.adopt(lane(1), attempt, job(1), 0..1, Some(now), now).expect("an open task");
    grid.scheduler.demand_renewals(attempt, now).expect("leased");
    grid.scheduler.note_report(attempt);
    grid.wait(POLICY.lease_timeout);
    assert_eq!(grid.ends().len(), 2, "the lease expires and the job fails");
    assert_eq!(grid.scheduler.leases_of(worker(1)), 0);
}
