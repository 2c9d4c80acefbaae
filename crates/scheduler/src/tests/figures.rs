//! Counts that autoscalers and people read.

use std::time::Duration;

use model::{JobKind, Requirements};

use super::harness::{Harness, TASK_TIME, job, labels, lane, slots, spec, worker};
use crate::{AttemptFailure, Demand, History, JobCounts, JobError, JobSpec, LeaseSize, OnExhausted, WaitReason};

#[test]
fn demand_tells_runnable_from_paused_and_unservable_tasks() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 10);
    grid.submit(2, 20);
    grid.scheduler.pause(job(2)).expect("it waits");
    let requires = Requirements { labels: labels(&[("gpu", "yes")]), ..Requirements::default() };
    grid.submit_spec(3, JobSpec { requires, ..spec(30) });
    grid.submit_spec(4, JobSpec::new(JobKind::TASKS, 40));
    grid.claim(1).expect("a task of job 1");
    let demand = Demand { runnable: 9, paused: 20, unservable: 30, running: 1, wanted_slots: 40 };
    assert_eq!(grid.scheduler.demand(JobKind::SUM_OF_PRIMES), demand);
    assert_eq!(grid.scheduler.demand(JobKind::TASKS), Demand { runnable: 40, wanted_slots: 40, ..Demand::default() });
    assert_eq!(grid.scheduler.demand(JobKind::SLEEP), Demand::default());
    assert_eq!(grid.scheduler.wanted_slots(), 80);
    assert_eq!(grid.scheduler.runnable_by_priority(), [0, 0, 0, 0, 49, 0, 0, 0, 0]);
    grid.scheduler.worker_suspended(worker(1), grid.now);
    grid.scheduler.worker_lost(worker(2), grid.now);
    let demand = grid.scheduler.demand(JobKind::SUM_OF_PRIMES);
    assert_eq!((demand.runnable, demand.unservable), (0, 39), "nobody is left");
    assert_eq!(grid.scheduler.runnable_by_priority(), [0; 9]);
    grid.scheduler.worker_resumed(worker(1));
    assert_eq!(grid.scheduler.demand(JobKind::TASKS).runnable, 40);
    assert_eq!(grid.scheduler.runnable_by_priority(), [0, 0, 0, 0, 49, 0, 0, 0, 0]);
    grid.scheduler.check();
    for number in 1..=4 {
        grid.scheduler.cancel(job(number)).expect("it is there");
    }
    assert_eq!(grid.scheduler.demand(JobKind::SUM_OF_PRIMES), Demand::default());
    assert_eq!(grid.scheduler.wanted_slots(), 0);
}

#[test]
fn a_job_that_brings_its_workers_wants_no_slots_of_others() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, JobSpec { brings_workers: true, ..spec(100) });
    grid.submit(2, 3);
    assert_eq!(grid.scheduler.wanted_slots(), 3);
    grid.claim(1).expect("a task of job 1");
    assert_eq!(grid.scheduler.wanted_slots(), 3);
    grid.scheduler.check();
}

#[test]
fn wanted_slots_count_full_leases_once_the_speed_is_known() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 1_001);
    let first = grid.claim(1).expect("task 0");
    assert_eq!(grid.scheduler.wanted_slots(), 1_001, "a task may take any time");
    grid.complete(&first).expect("leased");
    assert_eq!(grid.scheduler.wanted_slots(), 125, "leases of eight tasks");
    let second = grid.claim(1).expect("more");
    grid.complete(&second).expect("leased");
    assert_eq!(grid.scheduler.wanted_slots(), 100, "leases of ten tasks, the target");
    grid.claim(1).expect("more");
    assert_eq!(grid.scheduler.wanted_slots(), 1 + 99);
    grid.scheduler.pause(job(1)).expect("it runs");
    assert_eq!(grid.scheduler.wanted_slots(), 0);
}

#[test]
fn jobs_are_counted_by_state() {
    let mut grid = Harness::with_workers(1);
    for number in 1..=3 {
        grid.submit(number, 1);
    }
    let lease = grid.claim(1).expect("job 1");
    grid.scheduler.pause(job(2)).expect("it waits");
    assert_eq!(grid.scheduler.state_counts(), JobCounts { queued: 1, running: 1, paused: 1 });
    grid.complete(&lease).expect("leased");
    assert_eq!(
        grid.scheduler.state_counts(),
        JobCounts { queued: 1, running: 0, paused: 1 },
        "a job that is done does not run"
    );
    grid.scheduler.resume(job(2), grid.now).expect("it is paused");
    grid.scheduler.cancel(job(3)).expect("it waits");
    assert_eq!(grid.scheduler.state_counts(), JobCounts { queued: 1, running: 0, paused: 0 });
}

#[test]
fn a_retried_job_waits_from_its_retry() {
    let mut grid = Harness::with_workers(1);
    let individual = JobSpec { on_exhausted: OnExhausted::SkipTask, max_attempts: 1, ..spec(2) };
    grid.submit_spec(1, individual);
    let lease = grid.claim(1).expect("task 0");
    let held = grid.claim_for(lane(1), LeaseSize::AtMost(1)).expect("active").expect("task 1");
    grid.scheduler.fail(lease.attempt, AttemptFailure::Refused("no".to_owned()), grid.now).expect("leased");
    grid.scheduler.worker_retired(worker(1), grid.now);
    grid.wait(Duration::from_secs(30));
    assert!(grid.scheduler.holds(held.attempt));
    assert_eq!(grid.scheduler.retry(job(1), grid.now), Ok(true));
    let waited = super::harness::WORKER_WAIT;
    assert_eq!(grid.scheduler.poll_timeout(), Some(grid.now + waited));
    grid.wait(waited);
    let failed = crate::Event::JobFailed { job: job(1), error: JobError::NoWorker { waited } };
    assert_eq!(grid.ends().last(), Some(&failed));
}

#[test]
fn jobs_that_wait_for_a_first_worker_give_up_one_after_the_other() {
    let mut grid = Harness::new();
    let waiting = |seconds| JobSpec { worker_wait: Some(Duration::from_secs(seconds)), ..spec(1) };
    grid.submit_spec(1, waiting(10));
    grid.wait(Duration::from_secs(1));
    grid.submit_spec(2, waiting(10));
    grid.submit_spec(3, waiting(5));
    grid.submit_spec(4, JobSpec { worker_wait: None, ..spec(1) });
    let mut ends = Vec::new();
    for _ in 0..3 {
        let due_at = grid.scheduler.poll_timeout().expect("a job gives up");
        grid.wait(due_at - grid.now);
        grid.scheduler.check();
        for event in grid.events() {
            if let crate::Event::JobFailed { job, .. } = event {
                ends.push((job, due_at));
            }
        }
    }
    let start = grid.now - Duration::from_secs(11);
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(ends, [(job(3), at(6)), (job(1), at(10)), (job(2), at(11))]);
    assert_eq!(grid.scheduler.poll_timeout(), None);
}

#[test]
fn a_paused_job_does_not_give_up() {
    let mut grid = Harness::new();
    grid.submit(1, 1);
    grid.scheduler.pause(job(1)).expect("it waits");
    assert_eq!(grid.scheduler.poll_timeout(), None);
    grid.wait(Duration::from_secs(60));
    grid.scheduler.resume(job(1), grid.now).expect("it is paused");
    assert_eq!(grid.scheduler.poll_timeout(), Some(grid.now + super::harness::WORKER_WAIT));
}

#[test]
fn an_explanation_counts_the_jobs_that_go_first() {
    let mut grid = Harness::with_workers(1);
    let priority = |priority: u8| model::Priority::try_from(priority).expect("1 to 9");
    for (number, level) in [(1, 5), (2, 7), (3, 5), (4, 2)] {
        grid.submit_spec(number, JobSpec { priority: priority(level), ..spec(5) });
    }
    let ahead = |number| match grid.scheduler.explain(job(number)) {
        Some(WaitReason::Busy { ahead, slots: 1, busy: 0 }) => ahead,
        other => panic!("{other:?}"),
    };
    assert_eq!([1, 2, 3, 4].map(ahead), [2, 0, 2, 3]);
}

#[test]
fn a_new_job_has_the_figures_of_its_history() {
    let mut grid = Harness::with_workers(1);
    let history = History { over: std::iter::once(0..4).collect(), is_paused: true, ..History::default() };
    grid.scheduler.submit(job(1), spec(10), &history, grid.now).expect("a new job");
    let demand = Demand { paused: 6, ..Demand::default() };
    assert_eq!(grid.scheduler.demand(JobKind::SUM_OF_PRIMES), demand);
}

#[test]
fn speeds_of_workers_that_are_gone_are_dropped() {
    let mut grid = Harness::new();
    grid.submit(1, 1_000_000);
    for number in 1..=1_000 {
        grid.join(number, slots(1));
        let lease = grid.claim(number).expect("tasks");
        grid.complete_after(&lease, TASK_TIME).expect("leased");
        grid.scheduler.worker_lost(worker(number), grid.now);
    }
    let known = grid.scheduler.job(job(1)).expect("it runs").known_speeds();
    assert!(known <= 66, "{known} speeds");
}

#[test]
fn jobs_that_no_worker_can_run_are_named_one_of_each_sort() {
    let mut grid = Harness::with_workers(1);
    let requires = |key: &str| Requirements { labels: labels(&[(key, "yes")]), ..Requirements::default() };
    grid.submit(1, 10);
    for (number, key) in [(2, "gpu"), (3, "gpu"), (4, "disk")] {
        grid.submit_spec(number, JobSpec { requires: requires(key), ..spec(1) });
    }
    assert_eq!(grid.scheduler.unserved(9), [job(2), job(4)]);
    assert_eq!(grid.scheduler.unserved(1), [job(2)]);
    grid.scheduler.worker_suspended(worker(1), grid.now);
    assert_eq!(grid.scheduler.unserved(9).len(), 3, "nobody is left");
    grid.scheduler.pause(job(4)).expect("it waits");
    grid.scheduler.cancel(job(2)).expect("it waits");
    assert_eq!(grid.scheduler.unserved(9), [job(1), job(3)]);
}
