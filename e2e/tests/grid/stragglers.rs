//! A worker that is far slower than the others. The scheduler's own test measures, in virtual time, by how much such a worker
//! prolongs a job and how much work is discarded.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::helpers::{Coordinator, Order, Pace, Sleeper, eventually};

const GOOD_WORKERS: usize = 4;

/// More than all workers hold until the slow one holds the lease that it never ends.
const TASKS: u64 = 200;
const TASK_SECONDS: f64 = 0.05;

/// Longer than any test: only a second attempt takes the place of a lease that does not end.
const LONG_LEASES: (&str, &str) = ("DIVVY_LEASE_TIMEOUT_MS", "3600000");

#[test]
fn worker_that_does_not_end_its_leases_any_more_holds_no_job_up() {
    let coordinator = Coordinator::start(&[LONG_LEASES]);
    let gate = Arc::new(AtomicBool::new(false));
    // The others wait for the slow worker, so that tasks are left for it however late it is.
    let _good = [(); GOOD_WORKERS].map(|()| Sleeper::join(&coordinator, Pace::Gated(Arc::clone(&gate))));
    let slow = Sleeper::join(&coordinator, Pace::Endless(gate));
    let order = Order::sleep(TASKS, TASK_SECONDS);
    let id = coordinator.submit(&order);
    assert_eq!(eventually("its result", || coordinator.client().result(&id)), order.result);
    eventually("the slow worker's lease is taken back", || (slow.revoked() > 0).then_some(()));
    eventually("all leases are over", || (coordinator.busy() == 0).then_some(()));
}
