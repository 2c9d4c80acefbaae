//! A worker that is far slower than the others.

use std::time::Duration;

use jiff::Timestamp;

use crate::helpers::{Coordinator, Order, Sleeper, eventually, heavy};

const GOOD_WORKERS: usize = 12;

/// Fourteen rounds of the good workers: the slow one begins its second task after ten of them and alone would take until
/// the twentieth.
const TASKS: u64 = 14 * GOOD_WORKERS as u64;
const TASK_SECONDS: f64 = 0.2;

/// The slow worker takes so many times as long.
const SLOWNESS: u32 = 10;

/// A job takes at most so many times as long with the slow worker as without it.
const LONGEST: f64 = 1.3;

/// The share of all computing time that may go into leases whose outcome is not used.
const MOST_WASTE: f64 = 0.05;

#[test]
fn worker_that_is_ten_times_slower_holds_no_job_up_and_wastes_little() {
    let _turn = heavy();
    let coordinator = Coordinator::start(&[]);
    let mut workers: Vec<_> = (0..GOOD_WORKERS).map(|_| Sleeper::join(&coordinator, 1)).collect();
    let without = makespan(&coordinator);
    workers.push(Sleeper::join(&coordinator, SLOWNESS));
    let before: Duration = busy(&workers, true);
    let with = makespan(&coordinator);
    eventually("all leases are over", || (coordinator.busy() == 0).then_some(()));
    let (useful, wasted) = (busy(&workers, true) - before, busy(&workers, false));
    let waste = wasted.div_duration_f64(useful + wasted);
    eprintln!("{without:?} without it, {with:?} with it, {:.1} % wasted", 100.0 * waste);
    assert!(with.div_duration_f64(without) <= LONGEST, "{with:?} instead of {without:?}");
    assert!(waste <= MOST_WASTE, "{wasted:?} wasted, {useful:?} not");
    assert!(!workers[GOOD_WORKERS].leases().is_empty(), "the slow one never got a lease");
}

/// The time from the first lease of a job to its end, by the coordinator's clock.
fn makespan(coordinator: &Coordinator) -> Duration {
    let order = Order::sleep(TASKS, TASK_SECONDS);
    let id = coordinator.submit(&order);
    assert_eq!(eventually("its result", || coordinator.client().result(&id)), order.result);
    let job = coordinator.client().job(&id);
    let at = |field: &str| -> Timestamp { job[field].as_str().expect("a time").parse().expect("a time") };
    at("finished_at").duration_since(at("started_at")).try_into().expect("the end comes last")
}

/// The time that went into leases which were completed, or which were not.
fn busy(workers: &[Sleeper], is_done: bool) -> Duration {
    let leases = workers.iter().flat_map(Sleeper::leases);
    leases.filter(|lease| lease.is_done == is_done).map(|lease| lease.busy).sum()
}
