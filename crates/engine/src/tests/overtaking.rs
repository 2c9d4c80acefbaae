//! Tests of two leases of a slot that their worker runs in another order than they were sent.

use std::num::NonZeroU32;
use std::time::Duration;

use model::JobKind;
use scheduler::WorkerKey;

use super::harness::{Harness, held};
use crate::{HeldLease, HeldState, LeaseOrder};

const SECOND: Duration = Duration::from_secs(1);
const HEAD_START: Duration = Duration::from_millis(1);

/// A worker with two leases in its slot, whose tasks have a time limit of twenty seconds, in the order in which they were sent.
fn two_leases(grid: &mut Harness) -> (WorkerKey, LeaseOrder, LeaseOrder) {
    let (key, _) = grid.worker("w", 1, &[]);
    let mut stored = grid.stored(1, JobKind::SUM_OF_PRIMES, 100_000_000);
    stored.record.options.timeout.task_seconds = NonZeroU32::new(20);
    grid.engine.take_up(stored, grid.now).expect("a job");
    grid.effects();
    grid.complete(grid.orders[0].attempt);
    assert_eq!(grid.wait(HEAD_START).len(), 1, "the slot has two leases");
    (key, grid.orders[1].clone(), grid.orders[2].clone())
}

fn limit(order: &LeaseOrder) -> Duration {
    SECOND * 20 * u32::try_from(order.tasks.end - order.tasks.start).expect("few tasks")
}

fn listed(order: &LeaseOrder, age: Duration) -> HeldLease {
    HeldLease { age, ..held(order, HeldState::Running) }
}

#[test]
fn a_lease_that_waits_for_one_sent_later_is_not_timed_out_unrun_and_the_other_one_has_no_more_than_its_time() {
    let mut grid = Harness::new();
    let (key, first, second) = two_leases(&mut grid);
    grid.advance(SECOND);
    grid.engine.heartbeat(key, &[listed(&first, Duration::ZERO), listed(&second, SECOND)], grid.now);
    assert_eq!(grid.effects(), Vec::<String>::new());
    let ends = grid.wait(limit(&second) - SECOND);
    assert!(ends.iter().any(|effect| effect.contains("because TimedOut")), "{ends:?}");
    assert!(!grid.engine.is_leased(second.attempt), "it has had its time");
    grid.wait(limit(&first) - SECOND);
    assert!(grid.engine.is_leased(first.attempt), "it began when the other one ended");
    grid.wait(SECOND);
    assert!(!grid.engine.is_leased(first.attempt));
}

#[test]
fn a_lease_is_not_timed_out_before_it_has_had_its_time_after_the_outcome_of_one_sent_later() {
    let mut grid = Harness::new();
    let (_, first, second) = two_leases(&mut grid);
    grid.wait(limit(&first) - SECOND);
    grid.complete(second.attempt);
    grid.wait(limit(&first) - SECOND);
    assert!(grid.engine.is_leased(first.attempt), "it began when the other one ended");
    grid.wait(SECOND);
    assert!(!grid.engine.is_leased(first.attempt));
}

#[test]
fn a_list_in_the_order_of_the_leases_changes_no_time_limit() {
    let mut grid = Harness::new();
    let (key, first, second) = two_leases(&mut grid);
    grid.advance(SECOND);
    grid.engine.heartbeat(key, &[listed(&first, SECOND), listed(&second, Duration::ZERO)], grid.now);
    grid.effects();
    grid.wait(limit(&first) - SECOND - HEAD_START);
    assert!(!grid.engine.is_leased(first.attempt));
    assert!(grid.engine.is_leased(second.attempt));
}
