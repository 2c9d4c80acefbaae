//! Priorities, aging, pauses, retries and limits.

use std::time::Duration;

use model::{JobKind, Priority};

use super::harness::{Harness, MAX_ATTEMPTS, POLICY, job, lane, revoked, spec, worker};
use crate::{AttemptFailure, Event, History, JobError, JobSpec, LeaseSize, OnExhausted, Revocation, UnknownJob};

fn prioritized(tasks: u64, priority: u8) -> JobSpec {
    JobSpec { priority: Priority::try_from(priority).expect("1 to 9"), ..spec(tasks) }
}

fn individual(tasks: u64) -> JobSpec {
    JobSpec { on_exhausted: OnExhausted::SkipTask, ..JobSpec::new(JobKind::TASKS, tasks) }
}

#[test]
fn a_higher_priority_goes_first_whenever_it_came() {
    let mut grid = Harness::with_workers(8);
    grid.submit_spec(1, prioritized(9, 1));
    grid.submit_spec(5, prioritized(2, 5));
    grid.submit_spec(9, prioritized(2, 9));
    let order: Vec<_> = (1..=6).filter_map(|number| grid.claim_tasks(number)).map(|(id, _)| id).collect();
    assert_eq!(order, [job(9), job(9), job(5), job(5), job(1), job(1)]);
}

#[test]
fn a_job_that_waits_rises_by_a_priority_an_interval_so_that_nothing_starves() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, prioritized(10, 4));
    grid.submit_spec(2, prioritized(u64::MAX, 6));
    let mut waited = 0;
    while let Some(lease) = grid.claim(1)
        && lease.job == job(2)
        && waited < 100
    {
        grid.complete(&lease).expect("leased");
        grid.wait(POLICY.aging_interval / 10);
        waited += 1;
    }
    assert_eq!(waited, 20, "two intervals for two priorities");
    let next = grid.claim(1).expect("the other one");
    assert_eq!(next.job, job(2), "a turn ends the aging");
}

#[test]
fn the_highest_priority_is_as_high_as_waiting_can_lift() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, prioritized(2, 1));
    grid.wait(100 * POLICY.aging_interval);
    grid.submit_spec(2, prioritized(2, 9));
    assert_eq!(grid.claim_tasks(1), Some((job(1), 0..1)), "its turn is older");
    assert_eq!(grid.claim_tasks(2), Some((job(2), 0..1)));
}

#[test]
fn a_failed_attempt_goes_back_at_the_highest_priority() {
    let mut grid = Harness::with_workers(3);
    grid.submit_spec(1, prioritized(5, 1));
    let lease = grid.claim(1).expect("a task");
    grid.submit_spec(2, prioritized(5, 8));
    grid.fail(&lease).expect("leased");
    assert_eq!(grid.claim_tasks(2), Some((job(1), 0..1)));
    assert_eq!(grid.claim_tasks(3), Some((job(2), 0..1)));
}

#[test]
fn a_paused_job_gives_its_leases_back_and_gets_none_until_it_is_resumed() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 3);
    let lease = grid.claim(1).expect("task 0");
    assert_eq!(grid.scheduler.pause(job(1)), Ok(true));
    assert_eq!(grid.scheduler.pause(job(1)), Ok(false));
    assert_eq!(grid.ends(), [revoked(&lease, 1, Revocation::Paused)]);
    assert!(grid.complete(&lease).is_err());
    assert_eq!(grid.claim(1), None);
    assert!(!grid.scheduler.has_work());
    assert_eq!(grid.scheduler.resume(job(1), grid.now), Ok(true));
    assert_eq!(grid.scheduler.resume(job(1), grid.now), Ok(false));
    for _ in 0..3 {
        let lease = grid.claim(1).expect("a task");
        grid.complete(&lease).expect("leased");
    }
    assert_eq!(grid.ends(), [Event::JobSucceeded { job: job(1), total: 3 }]);
    assert_eq!(grid.scheduler.pause(job(1)), Err(UnknownJob));
    assert_eq!(grid.scheduler.resume(job(1), grid.now), Err(UnknownJob));
}

#[test]
fn an_individual_task_that_fails_leaves_the_others_to_go_on() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, individual(3));
    for attempt in 1..=MAX_ATTEMPTS {
        let lease = grid.claim(1).expect("task 0");
        assert_eq!(lease.tasks, 0..1, "attempt {attempt}");
        grid.fail(&lease).expect("leased");
    }
    let counts = grid.scheduler.progress(job(1)).expect("it goes on");
    assert_eq!((counts.failed, counts.pending), (1, 2));
    for _ in 0..2 {
        let lease = grid.claim(1).expect("another task");
        grid.complete(&lease).expect("leased");
    }
    let error = JobError::TasksFailed { failed: 1, total: 3 };
    assert_eq!(error.to_string(), "1 of 3 tasks failed");
    assert_eq!(JobError::TasksFailed { failed: 1, total: 1 }.to_string(), "its only task failed");
    assert_eq!(grid.ends(), [Event::JobFailed { job: job(1), error }]);
}

#[test]
fn a_batch_that_fails_is_halved_until_the_guilty_task_is_alone() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, individual(100));
    let guilty = 42;
    for _ in 0..100 {
        let Ok(Some(lease)) = grid.claim_for(lane(1), LeaseSize::AtMost(64)) else { break };
        if lease.tasks.contains(&guilty) {
            grid.fail(&lease).expect("leased");
        } else {
            grid.complete(&lease).expect("leased");
        }
    }
    let events = grid.events();
    let failed: Vec<_> = events.iter().filter(|event| matches!(event, Event::TasksFailed { .. })).collect();
    assert!(matches!(failed[..], [Event::TasksFailed { tasks, .. }] if *tasks == (guilty..guilty + 1)), "{failed:?}");
    assert_eq!(
        events.last(),
        Some(&Event::JobFailed { job: job(1), error: JobError::TasksFailed { failed: 1, total: 100 } })
    );
}

#[test]
fn retry_opens_what_failed_again() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, JobSpec { max_attempts: 1, ..individual(2) });
    let lease = grid.claim(1).expect("task 0");
    grid.fail(&lease).expect("leased");
    assert_eq!(grid.scheduler.retry(job(1), grid.now), Ok(true));
    assert_eq!(grid.scheduler.retry(job(1), grid.now), Ok(false));
    for _ in 0..2 {
        let lease = grid.claim(1).expect("a task");
        grid.complete(&lease).expect("leased");
    }
    assert_eq!(grid.ends(), [Event::JobSucceeded { job: job(1), total: 2 }]);
    assert_eq!(grid.scheduler.retry(job(1), grid.now), Err(UnknownJob));
}

#[test]
fn a_task_that_killed_three_workers_has_failed_whatever_its_attempts() {
    let mut grid = Harness::with_workers(4);
    grid.submit_spec(1, JobSpec { max_attempts: 100, ..individual(1) });
    for killed in 1..=3 {
        let lease = grid.claim(killed).expect("the task");
        grid.scheduler.fail(lease.attempt, AttemptFailure::WorkerLost, grid.now).expect("leased");
    }
    let error = JobError::TasksFailed { failed: 1, total: 1 };
    assert_eq!(grid.ends(), [Event::JobFailed { job: job(1), error }]);
}

#[test]
fn a_job_with_a_history_goes_on_where_it_was() {
    let mut grid = Harness::with_workers(1);
    let history = History {
        over: vec![0..5, 6..8],
        failed: std::iter::once(4..5).collect(),
        retries: vec![(8..9, 3)],
        total: 6,
        has_started: true,
        is_paused: false,
        is_held: false,
    };
    grid.scheduler.submit(job(1), individual(10), &history, grid.now).expect("a new job");
    let lease = grid.claim(1).expect("what failed before");
    assert_eq!(lease.tasks, 8..9);
    grid.fail(&lease).expect("leased");
    let rest: Vec<_> = std::iter::from_fn(|| {
        let lease = grid.claim(1)?;
        grid.complete(&lease).expect("leased");
        Some(lease.tasks)
    })
    .take(10)
    .collect();
    assert_eq!(rest, [5..6, 9..10]);
    let error = JobError::TasksFailed { failed: 2, total: 10 };
    assert_eq!(grid.ends(), [Event::JobFailed { job: job(1), error }]);
}

#[test]
fn a_job_whose_end_was_lost_with_its_coordinator_fails_at_once() {
    let mut grid = Harness::with_workers(1);
    let history = History {
        over: std::iter::once(0..5).collect(),
        failed: std::iter::once(4..5).collect(),
        has_started: true,
        is_held: true,
        ..History::default()
    };
    grid.scheduler.submit(job(1), spec(10), &history, grid.now).expect("a new job");
    let error = JobError::TasksFailed { failed: 1, total: 10 };
    assert_eq!(grid.events(), [Event::JobFailed { job: job(1), error }]);
    assert_eq!(grid.claim(1), None);
}

#[test]
fn a_job_that_was_all_done_before_ends_at_once() {
    let mut grid = Harness::new();
    let history = History { over: std::iter::once(0..2).collect(), total: 77, ..History::default() };
    grid.scheduler.submit(job(1), spec(2), &history, grid.now).expect("a new job");
    assert_eq!(grid.events(), [Event::JobSucceeded { job: job(1), total: 77 }]);
}

#[test]
fn a_job_ends_at_its_deadline() {
    let mut grid = Harness::with_workers(1);
    let deadline = Some(grid.now + Duration::from_secs(30));
    grid.submit_spec(1, JobSpec { deadline, ..spec(10) });
    let lease = grid.claim(1).expect("task 0");
    grid.wait(Duration::from_secs(29));
    assert_eq!(grid.ends(), []);
    grid.wait(Duration::from_secs(1));
    assert_eq!(
        grid.ends(),
        [revoked(&lease, 1, Revocation::JobOver), Event::JobFailed { job: job(1), error: JobError::TimedOut }]
    );
}

#[test]
fn a_job_that_is_retried_while_it_runs_has_its_time_limit_from_the_retry_on() {
    let mut grid = Harness::with_workers(1);
    let limit = Duration::from_secs(30);
    let timed =
        JobSpec { deadline: Some(grid.now + limit), retry_timeout: Some(limit), max_attempts: 1, ..individual(2) };
    grid.submit_spec(1, timed);
    let lease = grid.claim_for(lane(1), LeaseSize::AtMost(1)).expect("active").expect("task 0");
    grid.wait(Duration::from_secs(20));
    grid.fail(&lease).expect("leased");
    assert_eq!(grid.scheduler.retry(job(1), grid.now), Ok(true));
    grid.scheduler.check();
    grid.wait(Duration::from_secs(29));
    assert_eq!(grid.ends(), [], "the first limit has passed long ago");
    grid.wait(Duration::from_secs(1));
    assert_eq!(grid.ends(), [Event::JobFailed { job: job(1), error: JobError::TimedOut }]);
    assert_eq!(grid.scheduler.poll_timeout(), None);
}

#[test]
fn an_attempt_ends_at_the_jobs_timeout_for_one_and_cannot_be_renewed_beyond() {
    let mut grid = Harness::with_workers(1);
    let limit = Duration::from_secs(90);
    grid.submit_spec(1, JobSpec { task_timeout: Some(limit), ..individual(1) });
    let lease = grid.claim(1).expect("task 0");
    assert_eq!(lease.expires_at, grid.now + limit);
    grid.wait(Duration::from_secs(60));
    assert_eq!(grid.scheduler.renew(lease.attempt, grid.now), Ok(lease.expires_at));
    grid.wait(Duration::from_secs(30));
    assert_eq!(grid.ends(), [revoked(&lease, 1, Revocation::TimedOut)]);
}

#[test]
fn a_lease_that_waits_behind_one_of_a_longer_limit_has_its_own_time_after_that() {
    let mut grid = Harness::with_workers(1);
    let (long, short) = (Duration::from_secs(3_600), Duration::from_secs(10));
    grid.submit_spec(1, JobSpec { task_timeout: Some(long), ..individual(1) });
    assert_eq!(grid.claim(1).expect("the long task").job, job(1));
    grid.submit_spec(2, JobSpec { task_timeout: Some(short), max_lease_tasks: 1, ..individual(2) });
    let ahead = grid.claim(1).expect("a short task, ahead");
    assert_eq!((ahead.job, ahead.expires_at), (job(2), grid.now + long + short));
    grid.scheduler.check();
}

#[test]
fn the_time_limit_of_a_lease_that_waited_begins_when_the_lease_before_it_ends() {
    let mut grid = Harness::with_workers(1);
    let (long, short) = (Duration::from_secs(3_600), Duration::from_secs(10));
    grid.submit_spec(1, JobSpec { task_timeout: Some(long), ..individual(1) });
    let first = grid.claim(1).expect("the long task");
    let claimed_at = grid.now;
    grid.wait(Duration::from_secs(1));
    grid.submit_spec(2, JobSpec { task_timeout: Some(short), max_lease_tasks: 1, ..individual(2) });
    let ahead = grid.claim(1).expect("a short task, ahead");
    grid.wait(Duration::from_secs(1));
    grid.scheduler.slot_goes_on(lane(1), claimed_at, grid.now);
    assert_eq!(grid.scheduler.renew(first.attempt, grid.now), Ok(first.expires_at), "it has not waited");
    grid.complete(&first).expect("leased");
    grid.scheduler.slot_goes_on(lane(1), claimed_at, grid.now);
    grid.scheduler.check();
    grid.wait(short - Duration::from_millis(1));
    assert_eq!(grid.scheduler.renew(ahead.attempt, grid.now), Ok(grid.now + Duration::from_millis(1)));
    grid.wait(Duration::from_millis(1));
    assert!(grid.ends().contains(&revoked(&ahead, 1, Revocation::TimedOut)));
}

#[test]
fn a_lease_with_a_time_limit_does_not_wait_behind_one_without() {
    let mut grid = Harness::with_workers(1);
    let limit = Duration::from_secs(10);
    grid.submit_spec(1, individual(1));
    let open = grid.claim(1).expect("a task that may take any time");
    grid.submit_spec(2, JobSpec { task_timeout: Some(limit), max_lease_tasks: 1, ..individual(2) });
    assert_eq!(grid.claim(1), None, "its time would pass while it waits");
    grid.wait(limit * 2);
    grid.complete(&open).expect("leased");
    let lease = grid.claim(1).expect("a task that begins at once");
    assert_eq!((lease.job, lease.expires_at), (job(2), grid.now + limit));
}

#[test]
fn what_waits_for_a_slot_has_its_time_after_that_of_an_attempt_that_begins_anew() {
    let mut grid = Harness::with_workers(1);
    let limit = Duration::from_secs(90);
    let timed = |tasks| JobSpec { task_timeout: Some(limit), max_lease_tasks: 1, ..individual(tasks) };
    grid.submit_spec(1, timed(1));
    let first = grid.claim(1).expect("a task");
    grid.submit_spec(2, timed(2));
    let ahead = grid.claim(1).expect("a task, ahead");
    assert_eq!((ahead.job, ahead.expires_at), (job(2), grid.now + limit * 2));
    grid.wait(Duration::from_secs(80));
    assert_eq!(grid.scheduler.restart_limits_of_slot(first.attempt, grid.now), Ok(()));
    grid.scheduler.check();
    assert_eq!(grid.scheduler.renew(first.attempt, grid.now), Ok(grid.now + limit));
    assert_eq!(grid.scheduler.renew(ahead.attempt, grid.now), Ok(grid.now + limit * 2));
    assert_eq!(grid.scheduler.restart_limits_of_slot(ahead.attempt, grid.now), Ok(()));
    assert_eq!(grid.scheduler.renew(first.attempt, grid.now), Ok(grid.now + limit), "it waits for none");
}

#[test]
fn a_time_limit_that_begins_anew_ends_as_much_later_and_never_sooner() {
    let mut grid = Harness::with_workers(2);
    let (limit, slack) = (Duration::from_secs(90), Duration::from_secs(30));
    grid.submit_spec(1, JobSpec { task_timeout: Some(limit), lease_slack: slack, max_lease_tasks: 1, ..individual(2) });
    let (lease, other) = (grid.claim(1).expect("task 0"), grid.claim(2).expect("task 1"));
    grid.wait(Duration::from_secs(100));
    assert_eq!(grid.scheduler.restart_limit(lease.attempt, grid.now), Ok(()));
    grid.scheduler.check();
    grid.wait(Duration::from_secs(20));
    assert_eq!(grid.ends(), [revoked(&other, 2, Revocation::TimedOut)]);
    grid.wait(Duration::from_secs(99));
    assert_eq!(grid.scheduler.renew(lease.attempt, grid.now), Ok(lease.expires_at + Duration::from_secs(100)));
    grid.wait(Duration::from_secs(1));
    assert_eq!(grid.ends(), [revoked(&lease, 1, Revocation::TimedOut)]);
    assert!(grid.scheduler.restart_limit(lease.attempt, grid.now).is_err());
}

#[test]
fn a_renewed_lease_lasts_longer() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, individual(1));
    let lease = grid.claim(1).expect("task 0");
    for _ in 0..5 {
        grid.wait(POLICY.lease_timeout * 9 / 10);
        assert_eq!(grid.scheduler.renew(lease.attempt, grid.now), Ok(grid.now + POLICY.lease_timeout));
    }
    grid.complete(&lease).expect("leased");
    assert!(grid.scheduler.renew(lease.attempt, grid.now).is_err());
}

#[test]
fn counts_by_priority_follow_every_task() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, prioritized(3, 2));
    grid.submit_spec(2, prioritized(5, 9));
    let lease = grid.claim(1).expect("a task");
    assert_eq!(grid.scheduler.runnable_by_priority(), [0, 3, 0, 0, 0, 0, 0, 0, 4]);
    grid.complete(&lease).expect("leased");
    grid.scheduler.cancel(job(1)).expect("it waits");
    let counts = grid.scheduler.counts();
    assert_eq!((counts.total, counts.pending, counts.succeeded), (5, 4, 1));
    assert_eq!(grid.scheduler.runnable_by_priority(), [0, 0, 0, 0, 0, 0, 0, 0, 4]);
    grid.scheduler.worker_lost(worker(1), grid.now);
    assert_eq!(grid.scheduler.runnable_by_priority(), [0; 9], "no worker could run them");
}
