//! Priorities and turns where tasks are long, workers pull, tasks fail, or very many jobs wait.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{JobId, Priority};

use super::harness::{Harness, MAX_ATTEMPTS, POLICY, TASK_TIME, broken, job, lane, slots, spec, worker};
use crate::{AttemptFailure, Event, JobSpec, Lane, LeaseSize, Revocation};

fn prioritized(tasks: u64, priority: u8) -> JobSpec {
    JobSpec { priority: Priority::try_from(priority).expect("1 to 9"), ..spec(tasks) }
}

fn long(tasks: u64, priority: u8) -> JobSpec {
    JobSpec { task_estimate: Some(Duration::from_millis(500)), ..prioritized(tasks, priority) }
}

#[test]
fn the_place_ahead_of_a_busy_slot_is_kept_free_for_a_long_task_of_a_higher_priority() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, prioritized(1_000_000, 5));
    let running = [1, 2].map(|number| grid.claim(number).expect("a task of the long job"));
    grid.submit_spec(2, long(2, 9));
    assert_eq!(grid.claim(1), None, "a task of 0.5 s is not given ahead, and nothing lower is");
    assert_eq!(grid.claim(2), None);
    for (lease, number) in running.iter().zip([1, 2]) {
        grid.complete(lease).expect("leased");
        assert_eq!(grid.claim(number).map(|lease| lease.job), Some(job(2)), "the next free slot is its");
    }
    assert_eq!(grid.claim(1).map(|lease| lease.job), Some(job(1)), "nothing higher waits");
}

#[test]
fn the_place_ahead_is_kept_free_for_a_long_task_whose_turn_it_is() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, long(10, 5));
    grid.submit_spec(2, prioritized(1_000, 5));
    grid.submit_spec(3, long(10, 4));
    let first = grid.claim(1).expect("job 1, the older");
    assert_eq!(first.job, job(1));
    assert_eq!(grid.claim(1).map(|lease| lease.job), Some(job(2)), "it is its turn, and it is short");
    assert_eq!(grid.claim(1), None, "it is the turn of job 1");
    grid.complete(&first).expect("leased");
}

#[test]
fn pulling_workers_that_wait_share_evenly_what_is_open() {
    let mut grid = Harness::with_workers(10);
    (2..=10).for_each(|number| grid.scheduler.slot_idle(lane(number)));
    grid.submit(1, 10);
    let tasks = |grid: &mut Harness, lane| {
        let lease = grid.claim_for(lane, LeaseSize::AtMost(10)).expect("active").expect("a share");
        lease.tasks.end - lease.tasks.start
    };
    assert_eq!(tasks(&mut grid, lane(1)), 1, "nine others wait");
    while let Some(idle) = grid.scheduler.next_idle(grid.now) {
        assert_eq!(tasks(&mut grid, idle), 1);
    }
    (1..=9).for_each(|number| grid.scheduler.slot_idle(lane(number)));
    grid.submit(2, 35);
    assert_eq!(tasks(&mut grid, lane(10)), 4);
}

#[test]
fn a_lone_pulling_worker_gets_all_that_it_asks_for() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 12);
    let lease = grid.claim_for(lane(1), LeaseSize::AtMost(10)).expect("active").expect("tasks");
    assert_eq!(lease.tasks, 0..10);
    assert_eq!(grid.claim_for(lane(1), LeaseSize::AtMost(0)).expect("active").expect("at least one").tasks, 10..11);
}

#[test]
fn a_retry_waits_no_longer_than_two_leases_for_another_worker() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 2);
    let (failing, long) = (grid.claim(1).expect("task 0"), grid.claim(2).expect("task 1"));
    grid.fail(&failing).expect("leased");
    assert_eq!(grid.claim(1), None, "worker 2 may become free");
    let until = grid.now + 2 * POLICY.lease_target;
    assert_eq!(grid.scheduler.poll_timeout(), Some(until));
    grid.wait(2 * POLICY.lease_target - Duration::from_millis(1));
    assert_eq!(grid.claim(1), None);
    grid.wait(Duration::from_millis(1));
    assert_eq!(grid.claim_tasks(1), Some((job(1), 0..1)), "worker 2 is busy for long");
    grid.complete(&long).expect("leased");
}

#[test]
fn the_last_attempt_waits_longer_for_another_worker() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 2);
    let (failing, long) = (grid.claim(1).expect("task 0"), grid.claim(2).expect("task 1"));
    grid.fail(&failing).expect("leased");
    for _ in 2..MAX_ATTEMPTS {
        grid.wait(2 * POLICY.lease_target);
        let again = grid.claim(1).expect("worker 2 is busy for long");
        grid.fail(&again).expect("leased");
    }
    grid.wait(Duration::from_secs(30));
    assert_ne!(grid.claim_tasks(1), Some((job(1), 0..1)), "worker 2 may become free");
    grid.complete(&long).expect("leased");
    assert_eq!(grid.claim_tasks(2), Some((job(1), 0..1)));
}

#[test]
fn a_retry_of_a_worker_that_is_gone_is_held_back_from_nobody() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 1);
    grid.claim(1).expect("task 0");
    grid.scheduler.worker_lost(worker(1), grid.now);
    assert_eq!(grid.scheduler.poll_timeout(), None);
    assert_eq!(grid.claim_tasks(2), Some((job(1), 0..1)));
}

#[test]
fn of_very_many_jobs_the_first_end_early() {
    let mut grid = Harness::with_workers(1);
    for number in 0..1_000 {
        grid.submit_spec(number, JobSpec { max_lease_tasks: 1, ..spec(10) });
    }
    let (mut ended, mut leases_of) = (0, BTreeMap::<JobId, u32>::new());
    for _ in 0..1_000 {
        let lease = grid.claim(1).expect("open tasks");
        *leases_of.entry(lease.job).or_default() += 1;
        grid.complete(&lease).expect("leased");
        grid.now += Duration::from_secs(1);
        ended += grid.ends().len();
    }
    // Three of four turns go to jobs that take turns with each other until they end.
    assert!((65..=80).contains(&ended), "{ended} jobs have ended after 1,000 leases");
    assert!(leases_of.len() > 250, "{} jobs have started", leases_of.len());
}

#[test]
fn a_small_job_behind_very_many_gets_its_turn_within_a_bound() {
    let mut grid = Harness::with_workers(1);
    for number in 0..100 {
        grid.submit_spec(number, JobSpec { max_lease_tasks: 1, ..spec(1_000_000) });
    }
    grid.submit(1_000, 1);
    let mut turns = 0;
    while turns < 1_000 {
        let lease = grid.claim(1).expect("open tasks");
        grid.complete(&lease).expect("leased");
        turns += 1;
        if lease.job == job(1_000) {
            break;
        }
    }
    assert!(turns <= 4 * 101, "{turns} turns");
}

#[test]
fn waiting_lifts_a_job_outside_the_window_above_higher_priorities() {
    let mut grid = Harness::with_workers(1);
    for number in 0..20 {
        grid.submit_spec(number, prioritized(10, 3));
    }
    grid.submit_spec(100, prioritized(u64::MAX, 5));
    let mut firsts = Vec::new();
    for _ in 0..40 {
        let lease = grid.claim(1).expect("open tasks");
        grid.complete(&lease).expect("leased");
        if lease.job != job(100) {
            firsts.push(lease.job);
        }
        grid.wait(POLICY.aging_interval / 10);
    }
    firsts.sort_unstable();
    firsts.dedup();
    assert!(firsts.len() > 8, "{} jobs got a turn", firsts.len());
}

#[test]
fn a_place_in_the_window_passes_to_the_job_that_waits_longest() {
    let mut grid = Harness::with_workers(1);
    for number in 1..=10 {
        grid.submit(number, 2);
    }
    grid.scheduler.check();
    grid.scheduler.cancel(job(3)).expect("it waits");
    grid.scheduler.pause(job(4)).expect("it waits");
    grid.scheduler.check();
    let order: Vec<_> = (0..6)
        .map(|_| {
            let lease = grid.claim(1).expect("open tasks");
            grid.complete(&lease).expect("leased");
            grid.scheduler.check();
            lease.job
        })
        .collect();
    assert_eq!(order, [1, 2, 5, 6, 7, 8].map(job));
}

#[test]
fn a_task_past_its_own_time_limit_timed_out_and_a_silent_one_expired() {
    let mut grid = Harness::with_workers(2);
    let limit = Duration::from_secs(1);
    grid.submit_spec(1, JobSpec { task_timeout: Some(limit), ..prioritized(1, 9) });
    grid.submit(2, 1);
    let (limited, silent) = (grid.claim(1).expect("job 1"), grid.claim(2).expect("job 2"));
    grid.wait(limit);
    let revoked = |lease: &crate::Lease, lane: Lane, reason| Event::LeaseRevoked {
        attempt: lease.attempt,
        job: lease.job,
        lane,
        reason,
    };
    let failed = |lease: &crate::Lease, lane: Lane, cause| Event::AttemptFailed {
        job: lease.job,
        tasks: 0..1,
        failures: 1,
        attempt: lease.attempt,
        lane,
        cause,
    };
    let timed_out = AttemptFailure::TimedOut { limit };
    assert_eq!(timed_out.to_string(), "it took longer than its time limit of 1s");
    let ends: Vec<_> = grid.events().into_iter().filter(|event| !matches!(event, Event::JobStarted { .. })).collect();
    assert_eq!(ends, [revoked(&limited, lane(1), Revocation::TimedOut), failed(&limited, lane(1), timed_out)]);
    grid.wait(POLICY.lease_timeout);
    let ends: Vec<_> = grid.events().into_iter().filter(|event| !matches!(event, Event::JobStarted { .. })).collect();
    assert_eq!(
        ends,
        [revoked(&silent, lane(2), Revocation::Expired), failed(&silent, lane(2), AttemptFailure::Expired)]
    );
}

#[test]
fn a_lease_behind_another_of_its_slot_has_the_time_of_both() {
    let mut grid = Harness::with_workers(1);
    let limit = Duration::from_secs(1);
    grid.submit_spec(1, JobSpec { task_timeout: Some(limit), ..spec(10) });
    let first = grid.claim(1).expect("task 0");
    let second = grid.claim(1).expect("task 1, ahead");
    assert_eq!((first.expires_at, second.expires_at), (grid.now + limit, grid.now + 2 * limit));
    assert_eq!(grid.scheduler.renew(second.attempt, grid.now), Ok(second.expires_at));
}

#[test]
fn the_slots_of_a_worker_do_not_wait_for_each_other() {
    let mut grid = Harness::new();
    grid.join(1, slots(2));
    grid.submit_spec(1, long(10, 5));
    grid.claim(1).expect("task 0");
    let other = Lane { slot: 1, ..lane(1) };
    assert!(grid.claim_for(other, LeaseSize::Fitting).expect("active").is_some(), "a free slot beside a busy one");
    assert_eq!(grid.claim(1), None, "too long to wait behind another");
}

#[test]
fn a_failed_run_that_others_leave_alone_does_not_keep_its_worker_from_other_tasks() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 100);
    for _ in 0..3 {
        let lease = grid.claim(1).expect("the next task");
        grid.scheduler.fail(lease.attempt, broken(), grid.now).expect("leased");
    }
    assert_eq!(grid.claim_tasks(1), Some((job(1), 3..4)));
    assert_eq!(grid.claim_tasks(2), Some((job(1), 2..3)));
    grid.now += TASK_TIME;
}
