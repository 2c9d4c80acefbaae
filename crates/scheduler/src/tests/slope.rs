//! Jobs whose later tasks take longer.

use std::ops::Range;
use std::time::Duration;

use proptest::prelude::*;

use super::harness::{Harness, TASK_TIME, job, slots, spec, worker};
use crate::{JobSpec, Order};

/// Work of a lease that is no shorter than worth its cost, so that there is one for each slot.
const SHARE: Duration = Duration::from_millis(3);

/// A job that is divided into one lease for each slot.
fn rising(tasks: u64, slots: u64, rise: f64) -> JobSpec {
    // An estimate counts four times while nothing is known of the machine.
    let nanoseconds = u128::from(slots) * SHARE.as_nanos() / (4 * u128::from(tasks));
    let task_estimate = Some(Duration::from_nanos(u64::try_from(nanoseconds).expect("few")));
    JobSpec { order: Order::Stripes, task_estimate, rise, ..spec(tasks) }
}

/// The tasks that the first slots of so many workers get, each claiming once.
fn first_leases(workers: u64, spec: JobSpec) -> Vec<Range<u64>> {
    let mut grid = Harness::with_workers(workers);
    grid.submit_spec(1, spec);
    (1..=workers).filter_map(|worker| grid.claim_tasks(worker)).map(|(_, tasks)| tasks).collect()
}

fn sorted(mut leases: Vec<Range<u64>>) -> Vec<Range<u64>> {
    leases.sort_by_key(|tasks| tasks.start);
    leases
}

/// Work of consecutive tasks, in average tasks of a job of `all` tasks.
fn work(tasks: &Range<u64>, all: u64, rise: f64) -> f64 {
    let middle = (tasks.start + tasks.end) as f64 / 2.0 / all as f64;
    (tasks.end - tasks.start) as f64 * (1.0 + rise * (middle - 0.5))
}

#[test]
fn two_slots_share_the_work_and_not_the_number_of_tasks() {
    assert_eq!(first_leases(2, rising(80, 2, 0.33)), [0..43, 43..80]);
    assert_eq!(first_leases(2, rising(80, 2, 0.0)), [0..40, 40..80]);
    assert_eq!(first_leases(2, rising(20, 2, 0.33)), [0..11, 11..20]);
}

#[test]
fn four_slots_share_the_work_with_nothing_left_over() {
    let leases = sorted(first_leases(4, rising(80, 4, 0.33)));
    assert_eq!(leases, [0..23, 23..43, 43..62, 62..80]);
}

#[test]
fn every_lease_of_a_longer_job_has_the_same_work() {
    let spec = JobSpec { task_estimate: Some(Duration::from_micros(25)), ..rising(800, 2, 0.4) };
    let leases = first_leases(2, spec);
    let works: Vec<_> = leases.iter().map(|lease| work(lease, 800, 0.4)).collect();
    assert!(works.iter().all(|work| (work - 200.0).abs() < 1.0), "{leases:?}: {works:?}");
}

#[test]
fn a_lease_that_a_lost_worker_held_is_given_out_again() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, rising(80, 2, 0.33));
    grid.claim(1).expect("the start");
    let right = grid.claim(2).expect("the end");
    grid.scheduler.worker_lost(worker(1), grid.now);
    grid.complete(&right).expect("leased");
    while let Some(lease) = grid.claim(2) {
        grid.complete(&lease).expect("leased");
    }
    assert_eq!(grid.done(1), None, "it is over");
}

#[test]
fn what_is_left_is_measured_by_its_work_and_not_its_number_of_tasks() {
    let mut grid = Harness::with_workers(1);
    grid.submit_spec(1, JobSpec { max_lease_tasks: 40, ..rising(80, 1, 0.33) });
    assert_eq!(grid.claim_tasks(1), Some((job(1), 0..40)));
    grid.join(2, slots(1));
    assert_eq!(grid.claim_tasks(2), Some((job(1), 40..80)), "no rest, although the tasks are long ones");
}

proptest! {
    #[test]
    fn one_lease_for_each_slot_leaves_nothing_over(
        slots in 1u64..12, share in 12u64..200, more in 0u64..12, rise in 0.0..=1.0,
    ) {
        let tasks = slots * share + more;
        let leases = sorted(first_leases(slots, rising(tasks, slots, rise)));
        prop_assert!(leases.windows(2).all(|pair| pair[0].end == pair[1].start), "{:?}", &leases);
        prop_assert_eq!((leases[0].start, leases[leases.len() - 1].end), (0, tasks), "{:?}", &leases);
    }

    #[test]
    fn every_task_is_given_out_once_whatever_the_rise(slots in 1u64..6, tasks in 1u64..3000, rise in 0.0..=1.0) {
        let mut grid = Harness::with_workers(slots);
        grid.submit_spec(1, JobSpec { order: Order::Stripes, rise, ..spec(tasks) });
        let mut given = Vec::new();
        for number in (1..=slots).cycle() {
            let Some(lease) = grid.claim(number) else { break };
            grid.complete_after(&lease, TASK_TIME / 10).expect("leased");
            given.push(lease.tasks);
        }
        let given = sorted(given);
        prop_assert!(given.windows(2).all(|pair| pair[0].end == pair[1].start), "{:?}", &given);
        prop_assert_eq!((given[0].start, given[given.len() - 1].end), (0, tasks), "{:?}", &given);
    }
}
