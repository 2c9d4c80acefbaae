//! Second attempts at leases that take far longer than others.

use std::collections::BTreeMap;
use std::time::Duration;

use super::harness::{Harness, MAX_ATTEMPTS, TASK_TIME, job, lane, revoked, spec, worker};
use crate::{AttemptFailure, Event, JobError, JobSpec, Lease, LeaseSize, Revocation, StaleAttempt};

/// A job with one lease left, which worker 2 holds and which is late.
fn with_straggler() -> (Harness, Lease) {
    let mut grid = Harness::with_workers(3);
    grid.submit(1, 2);
    let late = grid.claim(1).expect("task 0");
    let other = grid.claim(2).expect("task 1");
    grid.complete(&other).expect("leased");
    // Nothing was known of the job's cost when the first lease was given out; it is known for the second.
    grid.fail(&late).expect("leased");
    let retried = grid.claim(2).expect("task 0 again");
    assert_eq!(grid.claim(1), None);
    grid.wait(Duration::from_secs(1));
    (grid, retried)
}

#[test]
fn a_late_lease_is_given_out_a_second_time_and_the_first_outcome_counts() {
    let (mut grid, late) = with_straggler();
    assert!(grid.scheduler.has_work());
    let second = grid.claim(3).expect("a second attempt");
    assert_eq!((second.job, &second.tasks), (late.job, &late.tasks));
    grid.scheduler.check();
    assert_eq!(grid.claim(3), None, "there is no third");
    grid.complete(&second).expect("the first outcome");
    assert_eq!(grid.complete(&late), Err(StaleAttempt));
    assert_eq!(
        grid.ends(),
        [revoked(&late, 2, Revocation::OutrunBySecondAttempt), Event::JobSucceeded { job: job(1), total: 2 }]
    );
}

#[test]
fn the_first_attempt_may_still_win() {
    let (mut grid, late) = with_straggler();
    let second = grid.claim(3).expect("a second attempt");
    grid.complete(&late).expect("the first outcome");
    assert_eq!(
        grid.ends(),
        [revoked(&second, 3, Revocation::OutrunBySecondAttempt), Event::JobSucceeded { job: job(1), total: 2 }]
    );
}

#[test]
fn the_loser_of_two_attempts_is_revoked_while_its_job_goes_on() {
    let mut grid = Harness::with_workers(4);
    grid.submit(1, 3);
    let (unlucky, quick) = (grid.claim(1).expect("task 0"), grid.claim(2).expect("task 1"));
    grid.complete(&quick).expect("leased");
    grid.fail(&unlucky).expect("leased");
    let (late, last) = (grid.claim(2).expect("task 0 again"), grid.claim(3).expect("task 2"));
    grid.wait(Duration::from_secs(1));
    let second = grid.claim(4).expect("a second attempt");
    assert_eq!(second.tasks, late.tasks);
    grid.complete(&second).expect("the first outcome");
    assert_eq!(grid.ends(), [revoked(&late, 2, Revocation::OutrunBySecondAttempt)]);
    assert_eq!(grid.complete(&late), Err(StaleAttempt));
    grid.complete(&last).expect("leased");
    assert_eq!(grid.ends(), [Event::JobSucceeded { job: job(1), total: 3 }]);
}

#[test]
fn one_of_two_attempts_that_fails_leaves_the_other_and_may_be_replaced() {
    let (mut grid, late) = with_straggler();
    let second = grid.claim(3).expect("a second attempt");
    grid.fail(&second).expect("leased");
    assert_eq!(grid.scheduler.counts().running, 1);
    grid.wait(Duration::from_millis(1));
    assert_eq!(grid.claim(3), None, "it has had its chance");
    let third = grid.claim(1).expect("another second attempt");
    grid.scheduler.worker_lost(worker(2), grid.now);
    assert_eq!(grid.complete(&late), Err(StaleAttempt));
    grid.complete(&third).expect("leased");
    assert_eq!(grid.ends(), [Event::JobSucceeded { job: job(1), total: 2 }]);
}

#[test]
fn second_attempts_at_a_task_that_always_times_out_come_to_an_end() {
    let mut grid = Harness::with_workers(4);
    let limit = Duration::from_secs(1);
    grid.submit_spec(1, JobSpec { task_timeout: Some(limit), max_lease_tasks: 1, ..spec(2) });
    let (_, other) = (grid.claim(1).expect("task 0"), grid.claim(2).expect("task 1"));
    grid.complete(&other).expect("leased");
    let mut attempts = 1;
    for _ in 0..1_000 {
        grid.wait(limit / 4);
        for number in 1..=4 {
            attempts += u32::from(grid.claim(number).is_some());
        }
    }
    assert_eq!(attempts, MAX_ATTEMPTS);
    let ends = grid.ends();
    let Some(Event::JobFailed { error: JobError::AttemptsExhausted { attempts, .. }, .. }) = ends.last() else {
        panic!("the job has failed: {ends:?}")
    };
    assert_eq!(*attempts, MAX_ATTEMPTS);
}

#[test]
fn a_worker_that_is_lost_with_one_of_two_attempts_counts_as_killed() {
    let mut grid = Harness::with_workers(4);
    grid.submit_spec(1, JobSpec { max_attempts: 100, ..spec(2) });
    let late = grid.claim(1).expect("task 0");
    let other = grid.claim(2).expect("task 1");
    grid.complete(&other).expect("leased");
    grid.fail(&late).expect("leased");
    let late = grid.claim(2).expect("task 0 again");
    assert_eq!(grid.claim(1), None);
    grid.wait(Duration::from_secs(1));
    for number in [3, 4] {
        let second = grid.claim(number).expect("a second attempt");
        assert_eq!(second.tasks, late.tasks);
        grid.scheduler.worker_lost(worker(number), grid.now);
        grid.wait(Duration::from_millis(1));
    }
    assert_eq!(grid.ends(), [], "the first attempt goes on");
    grid.scheduler.worker_lost(worker(2), grid.now);
    let error = JobError::AttemptsExhausted { tasks: late.tasks, attempts: 4, cause: AttemptFailure::WorkerLost };
    assert_eq!(grid.ends(), [Event::JobFailed { job: job(1), error }]);
}

#[test]
fn a_pause_takes_both_attempts_back_once() {
    let (mut grid, late) = with_straggler();
    let second = grid.claim(3).expect("a second attempt");
    grid.scheduler.pause(job(1)).expect("it runs");
    grid.scheduler.check();
    assert_eq!(grid.scheduler.counts().pending, 1);
    let mut ends = grid.ends();
    ends.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(ends, [revoked(&late, 2, Revocation::Paused), revoked(&second, 3, Revocation::Paused)]);
}

/// A job whose first task is done and whose other eleven are one late lease of worker 1; worker 2 is idle.
fn with_late_lease() -> (Harness, Lease) {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 12);
    let known = grid.claim(1).expect("task 0");
    grid.complete(&known).expect("leased");
    grid.scheduler.worker_suspended(worker(2), grid.now);
    let late = grid.claim_for(lane(1), LeaseSize::AtMost(11)).expect("active").expect("the rest");
    grid.scheduler.worker_resumed(worker(2));
    grid.wait(Duration::from_secs(5));
    (grid, late)
}

#[test]
fn a_second_attempt_is_no_longer_than_what_was_asked_for() {
    let (mut grid, late) = with_late_lease();
    assert_eq!(grid.claim_for(lane(2), LeaseSize::AtMost(10)), Ok(None));
    let second = grid.claim_for(lane(2), LeaseSize::AtMost(11)).expect("active").expect("a second attempt");
    assert_eq!(second.tasks, late.tasks);
}

#[test]
fn a_lease_with_a_second_attempt_keeps_all_its_tasks_and_may_repeat_an_earlier_division() {
    let (mut grid, late) = with_late_lease();
    assert_eq!(grid.scheduler.release_rest(late.attempt, 8, grid.now), Ok(true));
    while let Some(rest) = grid.claim_for(lane(2), LeaseSize::AtMost(1)).expect("active") {
        grid.complete(&rest).expect("leased");
    }
    let second = grid.claim_for(lane(2), LeaseSize::AtMost(7)).expect("active").expect("a second attempt");
    assert_eq!(second.tasks, 1..8);
    for attempt in [late.attempt, second.attempt] {
        assert_eq!(grid.scheduler.release_rest(attempt, 4, grid.now), Ok(false));
        assert_eq!(grid.scheduler.release_rest(attempt, 8, grid.now), Ok(true), "the first answer may be lost");
    }
    grid.scheduler.check();
    grid.complete(&second).expect("the first outcome");
    assert_eq!(grid.scheduler.release_rest(late.attempt, 8, grid.now), Err(StaleAttempt));
    assert_eq!(
        grid.ends(),
        [revoked(&late, 1, Revocation::OutrunBySecondAttempt), Event::JobSucceeded { job: job(1), total: 12 }]
    );
}

#[test]
fn a_lease_in_time_is_left_alone() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 3);
    let first = grid.claim(1).expect("task 0");
    grid.complete(&first).expect("leased");
    let (slow, other) = (grid.claim(1).expect("task 1"), grid.claim(2).expect("task 2"));
    grid.complete(&other).expect("leased");
    grid.wait(Duration::from_millis(190));
    assert_eq!(grid.claim(2), None, "a short lease is not late before a fifth of a second");
    grid.complete(&slow).expect("leased");
}

#[test]
fn a_lease_that_waits_for_another_of_its_slot_is_late_after_both() {
    let time = Duration::from_millis(500);
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 5);
    let first = grid.claim(1).expect("task 0");
    grid.complete_after(&first, time).expect("leased");
    let (present, ahead) = (grid.claim(1).expect("task 1"), grid.claim(1).expect("task 2"));
    for _ in 0..2 {
        let other = grid.claim(2).expect("task 3 or 4");
        grid.complete_after(&other, time).expect("leased");
    }
    grid.wait(time);
    grid.complete_after(&present, time).expect("leased");
    grid.wait(time * 4);
    assert_eq!(grid.claim(2), None, "three times what both leases take are three seconds");
    grid.wait(time + time / 10);
    assert_eq!(grid.claim_tasks(2), Some((job(1), ahead.tasks)));
}

#[test]
fn the_time_limit_of_a_lease_that_waits_for_another_of_its_slot_is_that_of_both() {
    let limit = Duration::from_secs(20);
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, JobSpec { task_timeout: Some(limit), max_lease_tasks: 1, ..spec(4) });
    let time_of = |grid: &mut Harness, size| {
        let lease = grid.claim_for(lane(1), size).expect("a worker of the pool").expect("a task");
        lease.expires_at.duration_since(grid.now)
    };
    assert_eq!(time_of(&mut grid, LeaseSize::Fitting), limit);
    assert_eq!(time_of(&mut grid, LeaseSize::Fitting), limit * 2);
    assert_eq!(time_of(&mut grid, LeaseSize::Fitting), limit * 3);
    assert_eq!(time_of(&mut grid, LeaseSize::AtMost(1)), limit, "a worker that pulls begins at once");
}

/// Runs eight workers in virtual time, the first of them `slowness` times slower. Returns the time until the job is done, and
/// the discarded work.
fn simulate(slowness: u32) -> (Duration, Duration) {
    let mut grid = Harness::with_workers(8);
    grid.submit(1, 2_000);
    let started_at = grid.now;
    let mut running: BTreeMap<u64, (std::time::Instant, std::time::Instant, Lease)> = BTreeMap::new();
    let mut wasted = Duration::ZERO;
    let task_time = |number: u64| if number == 1 { TASK_TIME * slowness } else { TASK_TIME };
    for _ in 0..100_000 {
        for number in 1..=8 {
            if !running.contains_key(&number)
                && let Some(lease) = grid.claim(number)
            {
                let tasks = u32::try_from(lease.tasks.end - lease.tasks.start).expect("few");
                running.insert(number, (grid.now + task_time(number) * tasks, grid.now, lease));
            }
        }
        let (next, number) = running.iter().map(|(number, (end, ..))| (*end, *number)).min().expect("somebody works");
        let next = grid.scheduler.poll_timeout().map_or(next, |timeout| timeout.clamp(grid.now, next));
        grid.now = next;
        grid.scheduler.handle_timeout(next);
        if running[&number].0 == next {
            let (_, _, lease) = running.remove(&number).expect("just found");
            grid.complete_after(&lease, task_time(number)).expect("leased");
        }
        for event in grid.events() {
            match event {
                Event::LeaseRevoked { attempt, .. } => running.retain(|_, (_, began, lease)| {
                    let is_over = lease.attempt == attempt;
                    wasted += if is_over { next - *began } else { Duration::ZERO };
                    !is_over
                }),
                Event::JobSucceeded { total, .. } => {
                    assert_eq!(total, 2_000);
                    return (next - started_at, wasted);
                }
                other @ (Event::AttemptFailed { .. } | Event::TasksFailed { .. } | Event::JobFailed { .. }) => {
                    panic!("{other:?}")
                }
                Event::JobStarted { .. } => (),
            }
        }
    }
    panic!("the job does not end")
}

#[test]
fn one_of_eight_workers_ten_times_slower_costs_little_time_and_work() {
    let (even, none_wasted) = simulate(1);
    assert_eq!(none_wasted, Duration::ZERO);
    // Seven workers would need 8 / 7 of the time.
    let (uneven, wasted) = simulate(10);
    assert!(uneven <= even * 13 / 10, "{uneven:?} against {even:?}");
    assert!(wasted <= TASK_TIME * 2_000 / 20, "{wasted:?}");
}
