//! Jobs whose last task waits for all others.

use std::time::Duration;

use super::harness::{Harness, MAX_ATTEMPTS, job, lane, spec, worker};
use crate::{Event, History, JobSpec, OnExhausted};

fn folding(tasks: u64) -> JobSpec {
    JobSpec { last_task_waits: true, max_lease_tasks: 1, ..spec(tasks) }
}

#[test]
fn the_last_task_is_leased_when_all_others_are_done() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, folding(3));
    let (first, second) = (grid.claim(1).expect("task 0"), grid.claim(2).expect("task 1"));
    grid.complete(&second).expect("leased");
    assert_eq!(grid.claim_tasks(2), None, "task 0 is not done");
    let counts = grid.scheduler.progress(job(1)).expect("live");
    assert_eq!((counts.pending, counts.running, counts.succeeded), (1, 1, 1));
    grid.scheduler.check();
    grid.complete(&first).expect("leased");
    let last = grid.claim(2).expect("task 2");
    assert_eq!(last.tasks, 2..3);
    grid.complete(&last).expect("leased");
    assert_eq!(grid.ends(), [Event::JobSucceeded { job: job(1), total: 3 }]);
}

#[test]
fn a_last_task_that_fails_is_tried_again() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, folding(2));
    let first = grid.claim(1).expect("task 0");
    grid.complete(&first).expect("leased");
    let last = grid.claim(1).expect("task 1");
    grid.fail(&last).expect("leased");
    grid.wait(Duration::from_secs(1));
    assert_eq!(grid.claim_tasks(1), Some((job(1), 1..2)));
    grid.scheduler.check();
}

#[test]
fn a_job_whose_other_tasks_fail_ends_without_its_last_task() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, JobSpec { on_exhausted: OnExhausted::FailJob, ..folding(2) });
    for _ in 0..MAX_ATTEMPTS {
        let lease = grid.claim(1).expect("task 0");
        grid.fail(&lease).expect("leased");
        grid.wait(Duration::from_secs(1));
    }
    assert!(matches!(grid.ends()[..], [Event::JobFailed { .. }]));
}

#[test]
fn what_is_known_of_a_stored_job_says_whether_its_last_task_waits() {
    let mut grid = Harness::with_workers(1);
    for (number, done, next) in [(1, 0..1, 1..2), (2, 0..2, 2..3)] {
        let history = History { over: vec![done], ..History::default() };
        grid.scheduler.submit(job(number), folding(3), &history, grid.now).expect("a new job");
        let lease = grid.claim(1).expect("a task");
        assert_eq!((lease.job, lease.tasks.clone()), (job(number), next));
        grid.scheduler.check();
        grid.scheduler.cancel(job(number)).expect("live");
    }
}

#[test]
fn the_last_task_is_offered_to_a_slot_that_found_nothing_while_the_others_ran() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, folding(3));
    let (first, second) = (grid.claim(1).expect("task 0"), grid.claim(2).expect("task 1"));
    grid.scheduler.worker_retired(worker(1), grid.now);
    grid.complete(&second).expect("leased");
    assert_eq!(grid.claim_tasks(2), None, "task 0 is not done");
    grid.scheduler.slot_idle(lane(2));
    grid.complete(&first).expect("leased");
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(2)), "no other worker is left for it");
    assert_eq!(grid.claim_tasks(2), Some((job(1), 2..3)));
    grid.scheduler.check();
}
