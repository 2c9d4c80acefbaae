//! Tests of the reconciliation of held leases with the engine's records.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use model::{AttemptId, JobKind};
use scheduler::AttemptFailure;
use uuid::Uuid;
use workloads::Report;

use super::harness::{Harness, RECOVERY, held, job};
use crate::{HeldLease, HeldState, LeaseFailure, Reconciled};

const SECOND: Duration = Duration::from_secs(1);

fn settled(attempts: &[AttemptId]) -> Reconciled {
    Reconciled { settled: attempts.to_vec(), deliver: Vec::new() }
}

#[test]
fn an_outcome_is_settled_once_it_is_durable_and_not_before() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    let order = grid.order(1, 0);
    grid.complete(order.attempt);
    let finished = [held(&order, HeldState::Finished)];
    assert_eq!(grid.engine.heartbeat(key, &finished, grid.now), Reconciled::default());
    // Started, completed, ended.
    grid.engine.stored(1, grid.now);
    assert_eq!(grid.engine.heartbeat(key, &finished, grid.now), Reconciled::default());
    grid.engine.stored(2, grid.now);
    // The answer is repeated: the first one may be lost.
    assert_eq!(grid.engine.heartbeat(key, &finished, grid.now), settled(&[order.attempt, order.attempt]));
    assert_eq!(grid.engine.heartbeat(key, &finished, grid.now), settled(&[order.attempt]));
}

#[test]
fn an_outcome_that_is_reported_twice_counts_once_and_is_not_void() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    let order = grid.order(1, 0);
    grid.complete(order.attempt);
    assert!(grid.engine.adopt_reported(key, &held(&order, HeldState::Finished), grid.now));
    assert_eq!(grid.complete(order.attempt), Vec::<String>::new());
    grid.engine.stored(3, grid.now);
    assert!(grid.engine.complete(order.attempt, Report::default(), SECOND, grid.now).is_err());
}

#[test]
fn a_failure_is_not_adopted_again_and_counts_once() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    let order = grid.order(1, 0);
    // Its task stays open, and could be adopted.
    grid.engine.stop(grid.now);
    let failure = LeaseFailure::TaskFailed("no".to_owned());
    grid.engine.fail(order.attempt, failure.clone(), grid.now).expect("leased");
    assert_eq!(grid.effects(), ["store 1 failed 0..1 1 at w"]);
    let listed = held(&order, HeldState::Finished);
    assert_eq!(grid.engine.heartbeat(key, std::slice::from_ref(&listed), grid.now), settled(&[order.attempt]));
    assert!(!grid.engine.adopt_reported(key, &listed, grid.now));
    assert!(grid.engine.fail(order.attempt, failure, grid.now).is_err());
    assert_eq!(grid.effects(), Vec::<String>::new());
}

#[test]
fn a_coordinator_that_starts_adopts_what_runs_and_asks_for_what_has_ended() {
    let mut before = Harness::new();
    before.worker("w", 2, &[]);
    before.take_up(1, JobKind::SLEEP, 2);
    let (running, finished) = (before.order(1, 0), before.order(1, 1));
    let mut grid = Harness::of_epoch(2);
    let mut stored = grid.stored(1, JobKind::SLEEP, 2);
    stored.record.started_at = Some(grid.now.at);
    assert!(grid.engine.recover(vec![stored], grid.now).is_empty());
    let listed = [held(&running, HeldState::Running), held(&finished, HeldState::Finished)];
    let (_, reconciled) = grid.worker("w", 2, &listed);
    assert_eq!(reconciled, Reconciled { settled: Vec::new(), deliver: vec![finished.attempt] });
    assert_eq!(grid.effects(), Vec::<String>::new());
    assert_eq!(grid.complete(finished.attempt), ["store 1 completed 1..2 0"]);
    assert_eq!(grid.complete(running.attempt), ["store 1 completed 0..1 0", "store 1 ended succeeded"]);
}

#[test]
fn an_adopted_lease_that_waits_for_its_slot_has_the_time_of_the_one_before_it_too() {
    let mut grid = Harness::of_epoch(2);
    let mut stored = grid.stored(1, JobKind::SLEEP, 2);
    stored.record.started_at = Some(grid.now.at);
    stored.record.options.timeout.task_seconds = NonZeroU32::new(20);
    assert!(grid.engine.recover(vec![stored], grid.now).is_empty());
    let lease = |number, tasks, age| {
        let attempt = AttemptId(Uuid::from_u128(number));
        HeldLease { attempt, job: job(1), tasks, slot: 0, age, state: HeldState::Running }
    };
    // Workers list leases in no order.
    let listed = [lease(1, 1..2, Duration::ZERO), lease(2, 0..1, 15 * SECOND)];
    grid.worker("w", 1, &listed);
    assert_eq!(grid.wait(4 * SECOND), Vec::<String>::new());
    assert_eq!(grid.complete(listed[1].attempt), ["store 1 completed 0..1 0"]);
    assert_eq!(grid.wait(19 * SECOND), Vec::<String>::new(), "it has run for 19 of its 20 seconds");
    assert_eq!(grid.complete(listed[0].attempt), ["store 1 completed 1..2 0", "store 1 ended succeeded"]);
}

#[test]
fn an_adopted_lease_that_waits_for_one_without_a_time_limit_has_its_time_from_that_one_s_end_on() {
    let mut grid = Harness::of_epoch(2);
    let (mut open, mut limited) = (grid.stored(1, JobKind::SLEEP, 1), grid.stored(2, JobKind::SLEEP, 1));
    open.record.started_at = Some(grid.now.at);
    limited.record.started_at = Some(grid.now.at);
    limited.record.options.timeout.task_seconds = NonZeroU32::new(20);
    assert!(grid.engine.recover(vec![open, limited], grid.now).is_empty());
    let lease = |number: u128, age| {
        let attempt = AttemptId(Uuid::from_u128(number));
        HeldLease { attempt, job: job(number), tasks: 0..1, slot: 0, age, state: HeldState::Running }
    };
    let listed = [lease(2, Duration::ZERO), lease(1, SECOND)];
    let (key, _) = grid.worker("w", 1, &listed);
    for _ in 0..100 {
        grid.wait(SECOND);
        assert_eq!(grid.engine.heartbeat(key, &listed, grid.now), Reconciled::default());
    }
    grid.engine.cancel(job(1), grid.now);
    grid.wait(19 * SECOND);
    assert!(grid.engine.is_leased(listed[0].attempt), "it has run for 19 of its 20 seconds");
    grid.wait(SECOND);
    assert!(!grid.engine.is_leased(listed[0].attempt));
}

#[test]
fn an_adopted_lease_has_no_time_of_kept_outcomes_of_its_slot() {
    let mut grid = Harness::of_epoch(2);
    let mut stored = grid.stored(1, JobKind::SLEEP, 3);
    stored.record.started_at = Some(grid.now.at);
    stored.record.options.timeout.task_seconds = NonZeroU32::new(20);
    assert!(grid.engine.recover(vec![stored], grid.now).is_empty());
    let lease = |number, tasks, age, state| {
        let attempt = AttemptId(Uuid::from_u128(number));
        HeldLease { attempt, job: job(1), tasks, slot: 0, age, state }
    };
    let kept = [lease(1, 0..1, 60 * SECOND, HeldState::Finished), lease(2, 1..2, 40 * SECOND, HeldState::Finished)];
    let running = lease(3, 2..3, 15 * SECOND, HeldState::Running);
    grid.worker("w", 1, &[&kept[..], std::slice::from_ref(&running)].concat());
    grid.wait(4 * SECOND);
    assert!(grid.engine.is_leased(running.attempt));
    grid.wait(SECOND);
    assert!(!grid.engine.is_leased(running.attempt));
    assert!(kept.iter().all(|lease| grid.engine.is_leased(lease.attempt)));
}

#[test]
fn leases_that_a_pulling_worker_takes_up_again_wait_for_no_other() {
    let mut grid = Harness::of_epoch(2);
    let mut stored = grid.stored(1, JobKind::TASKS, 3);
    stored.record.options.timeout.task_seconds = NonZeroU32::new(20);
    grid.engine.take_up(stored, grid.now).expect("a job");
    let puller = grid.puller("p");
    let leases = [0_u64, 1, 2].map(|task| HeldLease {
        attempt: AttemptId(Uuid::from_u128(1 + u128::from(task))),
        job: job(1),
        tasks: task..task + 1,
        slot: 0,
        age: Duration::ZERO,
        state: HeldState::Running,
    });
    for lease in &leases {
        assert!(grid.engine.adopt_reported(puller, lease, grid.now));
    }
    assert!(!grid.engine.has_made(leases[0].attempt));
    grid.wait(20 * SECOND);
    assert!(leases.iter().all(|lease| !grid.engine.is_leased(lease.attempt)));
}

#[test]
fn a_lease_that_a_pulling_worker_takes_up_again_expires_without_renewals() {
    let mut grid = Harness::of_epoch(2);
    let mut stored = grid.stored(1, JobKind::TASKS, 1);
    stored.record.options.timeout.task_seconds = NonZeroU32::new(3_600);
    grid.engine.take_up(stored, grid.now).expect("a job");
    let puller = grid.puller("p");
    let (attempt, age) = (AttemptId(Uuid::from_u128(1)), Duration::ZERO);
    let named = HeldLease { attempt, job: job(1), tasks: 0..1, slot: 0, age, state: HeldState::Running };
    assert!(grid.engine.adopt_reported(puller, &named, grid.now));
    grid.wait(29 * SECOND);
    assert!(grid.engine.is_leased(attempt));
    grid.wait(SECOND);
    assert!(!grid.engine.is_leased(attempt));
}

#[test]
fn tasks_of_a_job_that_ran_wait_for_their_workers_and_then_for_any() {
    let mut grid = Harness::of_epoch(2);
    let mut stored = grid.stored(1, JobKind::SLEEP, 1);
    stored.record.started_at = Some(grid.now.at);
    grid.engine.recover(vec![stored], grid.now);
    grid.worker("w", 1, &[]);
    assert_eq!(grid.effects(), Vec::<String>::new());
    let reason = "its tasks wait until the workers that may hold them already have said so";
    assert_eq!(grid.engine.explain(job(1)).as_deref(), Some(reason));
    assert_eq!(grid.engine.poll_timeout(), Some(grid.now.instant + RECOVERY));
    assert_eq!(grid.wait(RECOVERY), ["send 1 0..1 to 1.0"]);
}

#[test]
fn after_a_takeover_tasks_of_pulling_workers_wait_for_renewals_also_without_a_list_to_wait_for() {
    let mut before = Harness::new();
    let holder = before.puller("p");
    before.take_up(1, JobKind::TASKS, 2);
    let lease = before.engine.claim(holder, 1, before.now).expect("a task");
    let mut grid = Harness::of_epoch(2);
    let jobs = vec![grid.stored(1, JobKind::TASKS, 2), grid.stored(2, JobKind::SLEEP, 1)];
    assert!(grid.engine.take_over(jobs, grid.now).is_empty());
    grid.engine.await_lists(BTreeSet::new(), grid.now);
    // Pushed workers list all leases that they hold.
    grid.worker("w", 1, &[]);
    assert_eq!(grid.effects(), ["store 2 started", "send 2 0..1 to 1.0"]);
    let (holder, other) = (grid.puller("p"), grid.puller("q"));
    assert!(grid.engine.claim(other, 1, grid.now).is_none(), "the lease of its holder may not have been named yet");
    let age = Duration::from_secs(1);
    let state = HeldState::Running;
    let renewed = HeldLease { attempt: lease.attempt, job: job(1), tasks: lease.tasks, slot: 0, age, state };
    assert!(grid.engine.adopt_reported(holder, &renewed, grid.now));
    grid.wait(RECOVERY);
    let open = grid.engine.claim(other, 9, grid.now).expect("the task that none has named");
    assert_eq!(open.tasks, 1..2);
    assert!(grid.engine.complete(lease.attempt, report_of_one(), SECOND, grid.now).is_ok());
}

#[test]
fn a_pulling_worker_whose_lease_is_adopted_keeps_nothing_of_what_follows_from_others() {
    let mut grid = Harness::of_epoch(2);
    grid.take_up(1, JobKind::SUM_OF_PRIMES, 100_000_000);
    let puller = grid.puller_of("p", JobKind::SUM_OF_PRIMES);
    let (attempt, age) = (AttemptId(Uuid::from_u128(1)), Duration::ZERO);
    let named = HeldLease { attempt, job: job(1), tasks: 0..1, slot: 0, age, state: HeldState::Running };
    assert!(grid.engine.adopt_reported(puller, &named, grid.now));
    grid.effects();
    grid.worker("w", 1, &[]);
    grid.effects();
    assert_eq!(grid.orders[0].tasks.start, 1, "not the far half");
}

fn report_of_one() -> Report {
    Report { value: None, results: vec![serde_json::value::RawValue::NULL.to_owned()] }
}

#[test]
fn a_held_job_can_be_paused_and_canceled() {
    let mut grid = Harness::of_epoch(2);
    let mut jobs: Vec<_> = (1..=2).map(|number| grid.stored(number, JobKind::SLEEP, 1)).collect();
    jobs.iter_mut().for_each(|stored| stored.record.started_at = Some(grid.now.at));
    grid.engine.recover(jobs, grid.now);
    grid.worker("w", 2, &[]);
    assert_eq!(grid.engine.pause(job(1), grid.now), Ok(true));
    grid.engine.cancel(job(2), grid.now);
    assert_eq!(grid.wait(RECOVERY), Vec::<String>::new());
    assert_eq!(grid.engine.resume(job(1), grid.now), Ok(true));
    assert_eq!(grid.effects(), ["send 1 0..1 to 1.0"]);
}

#[test]
fn a_lease_that_never_came_comes_back_unharmed_after_two_heartbeats() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.worker("v", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    let order = grid.order(1, 0);
    grid.engine.connection_broke(order.attempt, grid.now);
    assert_eq!(grid.effects(), Vec::<String>::new());
    assert_eq!(grid.engine.heartbeat(order.worker, &[], grid.now), Reconciled::default());
    assert_eq!(grid.effects(), Vec::<String>::new());
    grid.engine.heartbeat(order.worker, &[], grid.now);
    let other = if order.worker == key { 2 } else { 1 };
    // No failure is recorded, and another worker gets it.
    let suspended = "suspend w: it did not take a lease".to_owned();
    assert_eq!(grid.effects(), [suspended, format!("send 1 0..1 to {other}.0")]);
}

#[test]
fn a_lease_that_arrives_after_it_was_given_up_is_adopted() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    let order = grid.order(1, 0);
    grid.engine.connection_broke(order.attempt, grid.now);
    for _ in 0..2 {
        grid.engine.heartbeat(key, &[], grid.now);
    }
    assert!(!grid.engine.is_leased(order.attempt));
    assert!(!grid.engine.has_ended(order.attempt), "a report on it may come before a list");
    let listed = [held(&order, HeldState::Running)];
    assert_eq!(grid.engine.heartbeat(key, &listed, grid.now), Reconciled::default());
    assert!(grid.engine.is_leased(order.attempt));
}

#[test]
fn a_lease_that_its_worker_gave_back_is_not_adopted_from_a_heartbeat_that_was_written_before() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    let order = grid.order(1, 0);
    // Its task stays open, and could be adopted.
    grid.engine.stop(grid.now);
    grid.engine.release(order.attempt, grid.now).expect("leased");
    let listed = [held(&order, HeldState::Finished)];
    assert_eq!(grid.engine.heartbeat(key, &listed, grid.now), settled(&[order.attempt]));
    for _ in 0..2 {
        assert_eq!(grid.engine.heartbeat(key, &[], grid.now), Reconciled::default());
    }
    assert_eq!(grid.effects(), Vec::<String>::new(), "the worker is not to blame");
}

#[test]
fn a_lease_that_a_draining_worker_handed_back_is_not_adopted_from_a_heartbeat_that_was_written_before() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 2, &[]);
    grid.take_up(1, JobKind::SLEEP, 2);
    let (first, second) = (grid.order(1, 0), grid.order(1, 1));
    grid.engine.drain(key, grid.now);
    grid.engine.fail(first.attempt, LeaseFailure::HandedBack, grid.now).expect("leased");
    let listed = [held(&first, HeldState::Running), held(&second, HeldState::Running)];
    assert_eq!(grid.engine.heartbeat(key, &listed, grid.now), settled(&[first.attempt]));
    assert!(grid.engine.is_leased(second.attempt) && !grid.engine.is_leased(first.attempt));
    assert_eq!(grid.effects(), Vec::<String>::new(), "no attempt is counted");
}

#[test]
fn a_lease_whose_connection_broke_goes_on_as_long_as_it_is_listed() {
    let mut grid = Harness::new();
    let (key, _) = grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    let order = grid.order(1, 0);
    grid.engine.connection_broke(order.attempt, grid.now);
    for _ in 0..200 {
        assert_eq!(grid.wait(SECOND), Vec::<String>::new());
        let listed = [held(&order, HeldState::Running)];
        assert_eq!(grid.engine.heartbeat(key, &listed, grid.now), Reconciled::default());
    }
    assert_eq!(grid.complete(order.attempt), ["store 1 completed 0..1 0", "store 1 ended succeeded"]);
}

#[test]
fn the_work_of_a_waiting_client_ends_with_its_connection() {
    let mut grid = Harness::new();
    grid.worker("w", 1, &[]);
    let work = workloads::kind(JobKind::SLEEP).and_then(|kind| {
        kind.restore(&grid.stored(1, JobKind::SLEEP, 1).record.params, 1.try_into().expect("not zero"))
    });
    grid.engine.ask(job(1), JobKind::SLEEP, work.expect("a job"), &model::JobOptions::default(), grid.now);
    assert_eq!(grid.effects(), ["send 1 0..1 to 1.0"]);
    let order = grid.order(1, 0);
    assert!(!order.outlives_connection);
    grid.engine.connection_broke(order.attempt, grid.now);
    assert_eq!(grid.effects(), ["suspend w: it failed a lease"]);
    let listed = [held(&order, HeldState::Running)];
    assert_eq!(grid.engine.heartbeat(order.worker, &listed, grid.now), settled(&[order.attempt]));
}

#[test]
fn what_a_lost_worker_had_is_tried_elsewhere_and_its_outcome_is_void_then() {
    let mut grid = Harness::new();
    grid.worker("w", 1, &[]);
    grid.take_up(1, JobKind::SLEEP, 1);
    let order = grid.order(1, 0);
    grid.worker("v", 1, &[]);
    grid.effects();
    grid.engine.lose(order.worker, grid.now);
    assert_eq!(grid.effects(), ["store 1 failed 0..1 1 at w", "send 1 0..1 to 2.0"]);
    let (_, reconciled) = grid.worker("w", 1, &[held(&order, HeldState::Finished)]);
    assert_eq!(reconciled, settled(&[order.attempt]));
    let broken = LeaseFailure::WorkerFailed(AttemptFailure::WorkerLost);
    assert!(grid.engine.fail(order.attempt, broken, grid.now).is_err());
}
