//! Workers that join, retire and are lost.

use std::time::Duration;

use model::JobKind;

use super::harness::{Harness, WORKER_WAIT, job, lane, revoked, slots, worker};
use crate::{AttemptFailure, Event, JobError, Lane, LeaseSize, Revocation, StaleAttempt, UnknownWorker, WorkerSpec};

#[test]
fn a_lost_workers_tasks_go_to_others_and_its_late_outcome_is_refused() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 10);
    let lease = grid.claim(1).expect("task 0");
    grid.scheduler.worker_lost(worker(1), grid.now);
    assert_eq!(grid.try_claim(1), Err(UnknownWorker));
    assert_eq!(grid.claim_tasks(2), Some((job(1), 0..1)));
    assert_eq!(grid.complete(&lease), Err(StaleAttempt));
    assert_eq!(grid.ends(), []);
}

#[test]
fn a_worker_that_comes_back_does_not_own_what_it_held_before() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 1);
    let before = grid.claim(1).expect("task 0");
    grid.scheduler.worker_lost(worker(1), grid.now);
    grid.join(2, slots(1));
    let after = grid.claim(2).expect("task 0 again");
    assert_eq!(grid.complete(&before), Err(StaleAttempt));
    grid.complete(&after).expect("leased");
    assert_eq!(grid.ends(), [Event::JobSucceeded { job: job(1), total: 1 }]);
}

#[test]
fn a_worker_lost_with_two_leases_of_one_job_fails_it_once() {
    let mut grid = Harness::new();
    grid.submit(1, 2);
    for loss in 1..=3 {
        grid.join(loss, slots(2));
        for slot in 0..2 {
            let lane = Lane { slot, ..lane(loss) };
            grid.claim_for(lane, LeaseSize::Fitting).expect("active").expect("a task");
        }
        grid.scheduler.worker_lost(worker(loss), grid.now);
    }
    let events = grid.ends();
    let failed = |event: &&Event| matches!(event, Event::JobFailed { .. });
    assert_eq!(events.iter().filter(failed).count(), 1);
    let Some(Event::JobFailed { error: JobError::AttemptsExhausted { cause, attempts, .. }, .. }) = events.last()
    else {
        panic!("the job failed last: {events:?}")
    };
    assert_eq!((cause, *attempts), (&AttemptFailure::WorkerLost, 3));
}

#[test]
fn a_retired_worker_gets_nothing_new_and_its_last_outcomes_count() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 2);
    let (last, other) = (grid.claim(1).expect("task 0"), grid.claim(2).expect("task 1"));
    grid.scheduler.worker_retired(worker(1), grid.now);
    assert_eq!(grid.try_claim(1), Err(UnknownWorker));
    grid.complete(&last).expect("still leased");
    grid.complete(&other).expect("leased");
    assert_eq!(grid.ends(), [Event::JobSucceeded { job: job(1), total: 2 }]);
}

#[test]
fn a_pool_of_retired_workers_is_empty() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 2);
    let last = grid.claim(1).expect("task 0");
    grid.scheduler.worker_retired(worker(1), grid.now);
    grid.wait(WORKER_WAIT);
    let error = JobError::NoWorker { waited: WORKER_WAIT };
    assert_eq!(grid.ends(), [revoked(&last, 1, Revocation::JobOver), Event::JobFailed { job: job(1), error }]);
}

#[test]
fn a_worker_that_joins_in_time_ends_the_wait() {
    let mut grid = Harness::new();
    grid.submit(1, 1);
    grid.wait(WORKER_WAIT - Duration::from_millis(1));
    grid.join(1, slots(1));
    grid.wait(WORKER_WAIT);
    assert_eq!(grid.ends(), []);
    assert_eq!(grid.claim_tasks(1), Some((job(1), 0..1)));
}

#[test]
fn a_worker_with_many_slots_holds_a_lease_for_each() {
    let mut grid = Harness::new();
    grid.join(1, slots(3));
    grid.submit(1, 3);
    let mut tasks = Vec::new();
    for slot in [0, 0, 1, 2, 0] {
        let lease = grid.claim_for(Lane { slot, ..lane(1) }, LeaseSize::Fitting).expect("active");
        tasks.push(lease.map(|lease| lease.tasks));
    }
    assert_eq!(
        tasks,
        [Some(0..1), None, Some(1..2), Some(2..3), None],
        "the second for slot 0 would leave slot 2 idle"
    );
    assert_eq!(grid.scheduler.leases_of(worker(1)), 3);
}

#[test]
fn a_suspended_worker_gets_nothing_until_it_is_resumed_and_keeps_what_it_holds() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 3);
    let held = grid.claim(1).expect("task 0");
    grid.scheduler.worker_suspended(worker(1), grid.now);
    assert_eq!(grid.try_claim(1), Err(UnknownWorker));
    grid.complete(&held).expect("still leased");
    grid.scheduler.worker_resumed(worker(1));
    assert_eq!(grid.claim_tasks(1), Some((job(1), 1..2)));
}

#[test]
fn a_suspended_peer_is_no_reason_to_keep_a_retry_from_a_worker() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 1);
    let lease = grid.claim(1).expect("task 0");
    grid.fail(&lease).expect("leased");
    grid.scheduler.worker_suspended(worker(2), grid.now);
    assert_eq!(grid.claim_tasks(1), Some((job(1), 0..1)));
}

#[test]
fn a_pool_of_suspended_workers_is_waited_for_no_longer_than_an_empty_one() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 1);
    grid.scheduler.worker_suspended(worker(1), grid.now);
    grid.wait(WORKER_WAIT);
    let error = JobError::NoWorker { waited: WORKER_WAIT };
    assert_eq!(grid.ends(), [Event::JobFailed { job: job(1), error }]);
}

#[test]
fn workers_for_other_jobs_are_waited_for_no_longer_than_none_at_all() {
    let mut grid = Harness::new();
    let other = WorkerSpec { kinds: vec![JobKind::TASKS], ..slots(1) };
    grid.join(1, other.clone());
    grid.submit(1, 1);
    grid.join(2, slots(1));
    grid.wait(WORKER_WAIT / 2);
    grid.scheduler.worker_lost(worker(2), grid.now);
    grid.wait(WORKER_WAIT / 2);
    grid.join(3, other);
    assert_eq!(grid.ends(), []);
    grid.wait(WORKER_WAIT / 2);
    let error = JobError::NoWorker { waited: WORKER_WAIT };
    assert_eq!(grid.ends(), [Event::JobFailed { job: job(1), error }]);
}

#[test]
fn a_backlog_of_small_jobs_keeps_slots_busy_ahead() {
    let mut grid = Harness::with_workers(1);
    for number in 1..=3 {
        grid.submit(number, 1);
    }
    let jobs: Vec<_> = (0..2).filter_map(|_| grid.claim_tasks(1)).map(|(id, _)| id).collect();
    assert_eq!(jobs, [job(1), job(2)]);
}
