//! Submitting, taking turns, ending.

use std::time::Duration;

use super::harness::{Harness, MAX_ATTEMPTS, WORKER_WAIT, broken, job, revoked, spec};
use crate::{Event, History, JobError, Revocation, SubmitError, UnknownJob};

#[test]
fn a_job_is_done_when_its_last_task_is_and_its_total_is_the_sum_of_the_parts() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 2);
    let first = grid.claim(1).expect("task 0");
    let second = grid.claim(1).expect("task 1, ahead");
    assert_eq!((first.tasks.clone(), second.tasks.clone()), (0..1, 1..2));
    grid.complete(&second).expect("leased");
    assert_eq!(grid.done(1), Some(1));
    assert_eq!(grid.ends(), []);
    grid.complete(&first).expect("leased");
    assert_eq!(grid.ends(), [Event::JobSucceeded { job: job(1), total: 2 }]);
    assert_eq!(grid.scheduler.progress(job(1)), None);
}

#[test]
fn a_job_without_tasks_or_with_an_id_in_use_is_refused() {
    let mut grid = Harness::new();
    assert_eq!(grid.scheduler.submit(job(1), spec(0), &History::default(), grid.now), Err(SubmitError::NoTasks));
    grid.submit(1, 1);
    assert_eq!(grid.scheduler.submit(job(1), spec(1), &History::default(), grid.now), Err(SubmitError::Duplicate));
}

#[test]
fn a_small_job_gets_the_next_turn_behind_a_huge_one() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 50_000_000);
    let running = grid.claim(1).expect("the huge job");
    grid.submit(2, 1);
    assert_eq!(grid.claim_tasks(1), Some((job(1), 1..2)), "a job that waited longer has its turn");
    grid.complete(&running).expect("leased");
    assert_eq!(grid.claim_tasks(1), Some((job(2), 0..1)));
}

#[test]
fn a_job_with_fewer_tasks_than_slots_gets_its_turn_while_every_slot_is_busy() {
    let mut grid = Harness::with_workers(3);
    grid.submit(1, 50_000_000);
    for number in 1..=3 {
        grid.claim(number).expect("the huge job");
    }
    grid.submit(2, 1);
    let turns: Vec<_> = (1..=3).filter_map(|number| grid.claim_tasks(number)).map(|(id, _)| id).collect();
    assert_eq!(turns, [job(1), job(2), job(1)]);
}

#[test]
fn jobs_take_turns_lease_by_lease() {
    let mut grid = Harness::with_workers(8);
    for number in 1..=3 {
        grid.submit(number, 100);
    }
    let turns: Vec<_> = (1..=6).filter_map(|worker| grid.claim_tasks(worker)).map(|(id, _)| id).collect();
    assert_eq!(turns, [job(1), job(2), job(3), job(1), job(2), job(3)]);
}

#[test]
fn a_canceled_job_revokes_its_leases_and_no_other() {
    let mut grid = Harness::with_workers(3);
    grid.submit(1, 10);
    grid.submit(2, 10);
    let (mine, other, mine_too) = (grid.claim(1).expect("1"), grid.claim(2).expect("2"), grid.claim(3).expect("1"));
    grid.scheduler.cancel(job(1)).expect("it runs");
    assert_eq!(grid.ends(), [revoked(&mine, 1, Revocation::JobOver), revoked(&mine_too, 3, Revocation::JobOver)]);
    assert!(grid.complete(&mine).is_err());
    assert_eq!(grid.claim_tasks(1), Some((job(2), 1..2)));
    grid.complete(&other).expect("untouched");
    assert_eq!(grid.scheduler.cancel(job(1)), Err(UnknownJob));
    assert_eq!(grid.ends(), [], "cancel again changes nothing");
}

#[test]
fn a_task_that_fails_on_every_attempt_fails_its_job_and_frees_the_rest() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 5);
    let other = grid.claim(2).expect("task 0");
    for attempt in 0..u64::from(MAX_ATTEMPTS) {
        let lease = grid.claim(1 + attempt % 2).expect("the failing task");
        assert_eq!(lease.tasks, 1..2, "attempt {attempt}");
        grid.fail(&lease).expect("leased");
    }
    let error = JobError::AttemptsExhausted { tasks: 1..2, attempts: 4, cause: broken() };
    assert_eq!(error.to_string(), "task 1 failed 4 times, the last time because it answered 500");
    let of_many = JobError::AttemptsExhausted { tasks: 1..4, attempts: 1, cause: broken() };
    assert_eq!(of_many.to_string(), "tasks 1 to 3 failed because it answered 500");
    let last: Vec<_> = grid.events().into_iter().rev().take(3).collect();
    let [Event::JobFailed { job: failed, error: reason }, over, Event::TasksFailed { tasks, failures, .. }] = &last[..]
    else {
        panic!("the last attempt is told of before the job ends: {last:?}")
    };
    assert_eq!((*failed, reason, over), (job(1), &error, &revoked(&other, 2, Revocation::JobOver)));
    assert_eq!((tasks.clone(), *failures), (1..2, MAX_ATTEMPTS));
    assert!(!grid.scheduler.has_work());
}

#[test]
fn a_job_does_not_wait_forever_for_a_first_worker() {
    let mut grid = Harness::new();
    grid.wait(Duration::from_secs(3600));
    grid.submit(1, 1);
    assert_eq!(grid.scheduler.poll_timeout(), Some(grid.now + WORKER_WAIT));
    grid.wait(WORKER_WAIT - Duration::from_millis(1));
    assert_eq!(grid.ends(), []);
    grid.wait(Duration::from_millis(1));
    let error = JobError::NoWorker { waited: WORKER_WAIT };
    assert_eq!(error.to_string(), "no worker was ready for 10000 ms");
    assert_eq!(grid.ends(), [Event::JobFailed { job: job(1), error }]);
    assert_eq!(grid.scheduler.poll_timeout(), None);
}
