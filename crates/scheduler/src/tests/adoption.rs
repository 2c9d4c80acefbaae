//! Attempts that run already when the scheduler hears of them, and tasks that workers hand back.

use std::ops::Range;
use std::time::Duration;

use model::AttemptId;
use uuid::Uuid;

use super::harness::{Harness, MAX_ATTEMPTS, POLICY, TASK_TIME, broken, job, lane, slots, spec, worker};
use crate::{AdoptError, Event, History, JobSpec, Lane, Lease, LeaseSize, OnExhausted, Order, StaleAttempt};

fn reported(number: u128) -> AttemptId {
    AttemptId(Uuid::from_u128(1_000_000 + number))
}

fn adopt(grid: &mut Harness, number: u64, attempt: AttemptId, tasks: Range<u64>) -> Result<Lease, AdoptError> {
    let now = grid.now;
    grid.scheduler.adopt(lane(number), attempt, job(1), tasks, Some(now - Duration::from_secs(5)), now)
}

#[test]
fn an_adopted_attempt_holds_its_tasks_as_if_it_had_claimed_them() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 10);
    let lease = adopt(&mut grid, 1, reported(1), 3..5).expect("open tasks");
    assert_eq!((lease.attempt, lease.job, lease.tasks.clone()), (reported(1), job(1), 3..5));
    assert_eq!(lease.expires_at, grid.now - Duration::from_secs(5) + POLICY.lease_timeout);
    let active = grid.scheduler.lease(reported(1)).expect("it is held");
    assert_eq!((active.lane, active.claimed_at), (lane(1), grid.now - Duration::from_secs(5)));
    assert_eq!(active.expires_at, lease.expires_at);
    assert_eq!(grid.events(), [Event::JobStarted { job: job(1) }]);
    grid.scheduler.check();
    assert_eq!(grid.claim_tasks(2), Some((job(1), 0..1)), "the others are open");
    grid.complete(&lease).expect("leased");
    assert_eq!(grid.done(1), Some(2));
}

#[test]
fn an_adopted_lease_can_be_renewed_and_expires_without() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 10);
    adopt(&mut grid, 1, reported(1), 0..1).expect("open tasks");
    let until = grid.now + POLICY.lease_timeout;
    assert_eq!(grid.scheduler.renew(reported(1), grid.now), Ok(until));
    adopt(&mut grid, 1, reported(2), 1..2).expect("open tasks");
    grid.wait(Duration::from_secs(55));
    assert!(grid.scheduler.holds(reported(1)));
    assert!(!grid.scheduler.holds(reported(2)));
}

#[test]
fn the_time_limit_of_an_adopted_lease_that_waits_for_another_of_its_slot_is_that_of_both() {
    let mut grid = Harness::with_workers(1);
    let limit = Duration::from_secs(20);
    grid.submit_spec(1, JobSpec { task_timeout: Some(limit), ..spec(10) });
    let now = grid.now;
    let mut time_of = |number, tasks, begun_at| {
        let adopted = grid.scheduler.adopt(lane(1), reported(number), job(1), tasks, begun_at, now);
        adopted.expect("open tasks").expires_at.duration_since(now)
    };
    let begun_at = Some(now - Duration::from_secs(5));
    assert_eq!(time_of(1, 0..1, None), limit, "it waits for none");
    assert_eq!(time_of(2, 1..2, None), limit * 2);
    assert_eq!(time_of(3, 2..3, begun_at), Duration::from_secs(15), "it runs");
    assert_eq!(time_of(4, 3..4, Some(now)), limit, "it has ended");
    grid.scheduler.check();
}

#[test]
fn the_time_limit_of_an_adopted_lease_that_waits_for_one_without_a_limit_begins_when_that_one_ends() {
    let mut grid = Harness::with_workers(1);
    let limit = Duration::from_secs(20);
    grid.submit_spec(1, spec(10));
    grid.submit_spec(2, JobSpec { task_timeout: Some(limit), ..spec(10) });
    let running = adopt(&mut grid, 1, reported(1), 0..1).expect("open tasks");
    let now = grid.now;
    for (number, tasks) in [(2, 0..1), (3, 1..2)] {
        grid.scheduler.adopt(lane(1), reported(number), job(2), tasks, None, now).expect("open tasks");
    }
    for _ in 0..10 {
        grid.wait(Duration::from_secs(20));
        for number in 1..=3 {
            assert_eq!(grid.scheduler.renew(reported(number), grid.now), Ok(grid.now + POLICY.lease_timeout));
        }
    }
    grid.scheduler.release(running.attempt, grid.now).expect("leased");
    grid.scheduler.begin_limits(lane(1), grid.now);
    grid.scheduler.check();
    let ended_at = grid.now;
    assert_eq!(grid.scheduler.renew(reported(2), grid.now), Ok(ended_at + limit));
    assert_eq!(grid.scheduler.renew(reported(3), grid.now), Ok(ended_at + limit * 2));
    grid.wait(limit);
    assert!(!grid.scheduler.holds(reported(2)));
    assert!(grid.scheduler.holds(reported(3)), "its limit allows for the lease ahead");
}

#[test]
fn only_open_tasks_are_adopted() {
    let mut grid = Harness::with_workers(2);
    let history = History { over: std::iter::once(8..9).collect(), ..History::default() };
    grid.scheduler.submit(job(1), spec(10), &history, grid.now).expect("a new job");
    adopt(&mut grid, 1, reported(1), 2..4).expect("open tasks");
    for tasks in [0..3, 3..5, 1..6, 2..4, 7..9, 9..11, 5..5, 12..13] {
        assert_eq!(adopt(&mut grid, 2, reported(2), tasks.clone()), Err(AdoptError::TasksNotOpen), "{tasks:?}");
    }
    grid.scheduler.check();
    adopt(&mut grid, 2, reported(2), 4..8).expect("up to the next that is not open");
}

#[test]
fn an_attempt_that_cannot_be_adopted_changes_nothing() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 10);
    let now = grid.now;
    adopt(&mut grid, 1, reported(1), 0..1).expect("open tasks");
    assert_eq!(adopt(&mut grid, 1, reported(1), 1..2), Err(AdoptError::AttemptInUse));
    assert_eq!(adopt(&mut grid, 7, reported(2), 1..2), Err(AdoptError::UnknownWorker));
    let unknown = grid.scheduler.adopt(lane(1), reported(2), job(9), 0..1, Some(now), now);
    assert_eq!(unknown, Err(AdoptError::UnknownJob));
    grid.scheduler.pause(job(1)).expect("it runs");
    assert_eq!(adopt(&mut grid, 1, reported(2), 1..2), Err(AdoptError::JobPaused));
    assert_eq!(grid.scheduler.leases(), 0);
    grid.scheduler.check();
}

#[test]
fn a_suspended_or_retired_worker_keeps_the_attempts_that_it_reports() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 3);
    grid.scheduler.worker_suspended(worker(1), grid.now);
    let suspended = adopt(&mut grid, 1, reported(1), 0..1).expect("open tasks");
    let last = grid.claim(2).expect("task 1");
    grid.scheduler.worker_retired(worker(2), grid.now);
    let retired = adopt(&mut grid, 2, reported(2), 2..3).expect("open tasks");
    grid.complete(&last).expect("leased");
    grid.scheduler.check();
    grid.complete(&suspended).expect("leased");
    grid.complete(&retired).expect("leased");
    assert_eq!(grid.ends(), [Event::JobSucceeded { job: job(1), total: 3 }]);
}

#[test]
fn adopted_retries_keep_their_failures() {
    let mut grid = Harness::with_workers(1);
    let history = History { retries: vec![(2..6, 3)], ..History::default() };
    let individual = JobSpec { on_exhausted: OnExhausted::SkipTask, ..spec(10) };
    grid.scheduler.submit(job(1), individual, &history, grid.now).expect("a new job");
    let lease = adopt(&mut grid, 1, reported(1), 3..4).expect("in the middle of what failed");
    grid.scheduler.check();
    grid.fail(&lease).expect("leased");
    let failures = grid.events().into_iter().find_map(|event| match event {
        Event::TasksFailed { tasks, failures, attempt, lane, .. } => Some((tasks, failures, attempt, lane)),
        Event::JobStarted { .. }
        | Event::AttemptFailed { .. }
        | Event::JobSucceeded { .. }
        | Event::JobFailed { .. }
        | Event::LeaseRevoked { .. } => None,
    });
    assert_eq!(failures, Some((3..4, MAX_ATTEMPTS, reported(1), lane(1))));
    let mixed = adopt(&mut grid, 1, reported(2), 1..3).expect("open before, failed behind");
    grid.scheduler.check();
    grid.fail(&mixed).expect("leased");
    assert!(grid.events().iter().any(|event| matches!(event, Event::AttemptFailed { failures: MAX_ATTEMPTS, .. })));
    assert_eq!(grid.scheduler.progress(job(1)).map(|counts| (counts.pending, counts.failed)), Some((9, 1)));
}

#[test]
fn a_slot_goes_on_behind_the_stripe_that_it_reported() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, JobSpec { order: Order::Stripes, ..spec(1_000) });
    let lease = adopt(&mut grid, 1, reported(1), 300..310).expect("open tasks");
    assert_eq!(grid.claim_tasks(2).map(|(_, tasks)| tasks.start), Some(0), "another takes what nobody walks");
    grid.complete(&lease).expect("leased");
    assert_eq!(grid.claim_tasks(1).map(|(_, tasks)| tasks.start), Some(310));
}

#[test]
fn an_adopted_lease_takes_its_slot_from_the_idle_ones() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 10);
    grid.scheduler.slot_idle(lane(1));
    adopt(&mut grid, 1, reported(1), 0..1).expect("open tasks");
    assert_eq!(grid.scheduler.next_idle(grid.now), None);
}

#[test]
fn the_leases_of_a_job_and_of_a_worker_are_listed() {
    let mut grid = Harness::new();
    grid.join(1, slots(2));
    grid.join(2, slots(1));
    grid.submit(1, 10);
    grid.submit(2, 10);
    let second = Lane { slot: 1, ..lane(1) };
    let leases = [lane(1), lane(2), second].map(|lane| grid.claim_for(lane, LeaseSize::Fitting));
    let leases = leases.map(|lease| lease.expect("active").expect("a task"));
    let of_job: Vec<_> = grid.scheduler.job_leases(job(1)).collect();
    assert_eq!(of_job.iter().map(|lease| lease.attempt).collect::<Vec<_>>(), [leases[0].attempt, leases[2].attempt]);
    assert_eq!((of_job[1].tasks.clone(), of_job[1].lane, of_job[1].claimed_at), (1..2, second, grid.now));
    let of_worker = |number| grid.scheduler.worker_leases(worker(number)).map(|lease| (lease.attempt, lease.job));
    assert_eq!(of_worker(1).collect::<Vec<_>>(), [(leases[0].attempt, job(1)), (leases[2].attempt, job(1))]);
    assert_eq!(of_worker(2).collect::<Vec<_>>(), [(leases[1].attempt, job(2))]);
    assert_eq!((grid.scheduler.leases_of(worker(1)), grid.scheduler.leases()), (2, 3));
    assert_eq!(grid.scheduler.lease(reported(1)), None);
}

#[test]
fn a_released_task_costs_no_attempt_and_goes_to_others_first() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 1);
    let lease = grid.claim(1).expect("task 0");
    grid.scheduler.release(lease.attempt, grid.now).expect("leased");
    assert_eq!(grid.scheduler.release(lease.attempt, grid.now), Err(StaleAttempt));
    assert_eq!(grid.claim(1), None);
    assert_eq!(grid.claim_tasks(2), Some((job(1), 0..1)));
    assert_eq!(grid.events(), [Event::JobStarted { job: job(1) }]);
}

#[test]
fn a_released_run_is_not_halved_and_does_not_raise_its_job() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 1000);
    let first = grid.claim(1).expect("task 0");
    grid.complete(&first).expect("leased");
    let lease = grid.claim(1).expect("more tasks");
    assert_eq!(lease.tasks, 1..9);
    grid.scheduler.release(lease.attempt, grid.now).expect("leased");
    grid.submit_spec(2, JobSpec { priority: model::Priority::HIGHEST, ..spec(1) });
    assert_eq!(grid.claim_tasks(2), Some((job(2), 0..1)));
    assert_eq!(
        grid.claim_for(Lane { slot: 1, ..lane(2) }, LeaseSize::Fitting).expect("active").expect("all").tasks,
        1..9
    );
    grid.scheduler.check();
}

#[test]
fn a_lone_worker_that_hands_a_task_back_again_and_again_gets_it_ever_later() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 1);
    let mut waits = Vec::new();
    for _ in 0..12 {
        let lease = grid.claim(1).expect("task 0");
        grid.scheduler.release(lease.attempt, grid.now).expect("leased");
        assert_eq!(grid.claim(1), None);
        let until = grid.scheduler.poll_timeout().expect("it is held back");
        waits.push((until - grid.now).as_millis());
        grid.wait(until - grid.now);
    }
    assert_eq!(waits[..4], [200, 400, 800, 1_600]);
    assert_eq!(waits[9..], [60_000; 3]);
    let lease = grid.claim(1).expect("task 0");
    grid.fail(&lease).expect("leased");
    let lease = grid.claim(1).expect("nobody else could run it");
    grid.scheduler.release(lease.attempt, grid.now).expect("leased");
    assert_eq!(grid.scheduler.poll_timeout(), Some(grid.now + 2 * POLICY.lease_target), "a failure ends the row");
}

#[test]
fn a_second_attempt_that_is_released_leaves_the_first() {
    let mut grid = Harness::with_workers(3);
    grid.submit(1, 2);
    let (failing, other) = (grid.claim(1).expect("task 0"), grid.claim(2).expect("task 1"));
    grid.complete(&other).expect("leased");
    grid.scheduler.fail(failing.attempt, broken(), grid.now).expect("leased");
    let late = grid.claim(2).expect("task 0 again");
    grid.wait(TASK_TIME * 100);
    let second = grid.claim(3).expect("a second attempt");
    grid.scheduler.release(second.attempt, grid.now).expect("leased");
    grid.scheduler.check();
    assert_eq!(grid.scheduler.counts().running, 1);
    grid.complete(&late).expect("the first goes on");
    assert_eq!(grid.ends(), [Event::JobSucceeded { job: job(1), total: 2 }]);
}
