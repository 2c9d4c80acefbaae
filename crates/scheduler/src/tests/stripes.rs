//! Slots that continue where their last lease ended.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use super::harness::{Harness, TASK_TIME, job, lane, slots, spec, worker};
use crate::{JobSpec, Lane, LeaseSize, Order};

fn stripes(tasks: u64) -> JobSpec {
    JobSpec { order: Order::Stripes, ..spec(tasks) }
}

#[test]
fn a_slot_goes_on_where_its_last_lease_ended_and_another_takes_the_far_half() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, stripes(1000));
    let (left, right) = (grid.claim(1).expect("the start"), grid.claim(2).expect("the far half"));
    assert_eq!((left.tasks.clone(), left.horizon), (0..1, 1000));
    assert_eq!((right.tasks.clone(), right.horizon), (501..502, 1000));
    grid.complete(&left).expect("leased");
    grid.complete(&right).expect("leased");
    let (left, right) = (grid.claim(1).expect("goes on"), grid.claim(2).expect("goes on"));
    assert_eq!((left.tasks.clone(), left.horizon), (1..9, 501));
    assert_eq!((right.tasks, right.horizon), (502..510, 1000));
}

#[test]
fn the_slots_of_one_worker_walk_apart() {
    let mut grid = Harness::new();
    grid.join(1, slots(2));
    grid.submit_spec(1, stripes(1000));
    let second = Lane { worker: worker(1), slot: 1 };
    let starts: Vec<_> = [lane(1), second, lane(1), second]
        .into_iter()
        .filter_map(|lane| grid.claim_for(lane, LeaseSize::Fitting).expect("active"))
        .map(|lease| lease.tasks.start)
        .collect();
    assert_eq!(starts, [0, 501, 1, 502]);
}

#[test]
fn what_a_lost_worker_walked_is_free_for_others() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, stripes(100));
    grid.claim(1).expect("the start");
    let right = grid.claim(2).expect("the far half");
    grid.complete(&right).expect("leased");
    grid.scheduler.worker_lost(worker(1), grid.now);
    let mut starts = BTreeSet::new();
    for _ in 0..100 {
        let Some(lease) = grid.claim(2) else { break };
        starts.insert(lease.tasks.start);
        grid.complete(&lease).expect("leased");
    }
    assert!(starts.contains(&0) && starts.contains(&1), "{starts:?}");
    assert_eq!(grid.done(1), None, "it is over");
}

#[test]
fn a_run_that_is_not_worth_another_set_up_is_left_to_who_walks_it() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, JobSpec { setup: TASK_TIME * 8, ..stripes(20) });
    // The set-up is part of the first lease's time.
    let first = grid.claim(1).expect("the start");
    grid.complete_after(&first, TASK_TIME * 9).expect("leased");
    let walking = grid.claim(1).expect("goes on");
    assert_eq!(walking.tasks, 1..6, "a quarter of what is left");
    assert_eq!(grid.claim(2), None, "the far half of 14 is less than a set-up of 8");
    grid.scheduler.worker_suspended(worker(1), grid.now);
    assert_eq!(grid.claim_tasks(2), Some((job(1), 6..13)), "free, as nobody walks it now");
}

#[test]
fn every_task_is_given_out_once_by_however_many_slots() {
    let mut grid = Harness::with_workers(7);
    grid.submit_spec(1, stripes(10_000));
    let (mut given, mut jumps) = (Vec::<Range<u64>>::new(), 0);
    let mut last_end = [0; 8];
    for number in (1..=7usize).cycle().take(10_000) {
        let Some(lease) = grid.claim(number as u64) else { break };
        jumps += u32::from(lease.tasks.start != last_end[number]);
        last_end[number] = lease.tasks.end;
        grid.complete_after(&lease, TASK_TIME).expect("leased");
        grid.now += Duration::from_millis(1);
        given.push(lease.tasks);
    }
    given.sort_by_key(|tasks| tasks.start);
    assert!(given.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert_eq!((given[0].start, given[given.len() - 1].end), (0, 10_000));
    assert!(jumps < 60, "{jumps} jumps in {} leases", given.len());
}

#[test]
fn an_estimate_makes_the_first_lease_longer_than_a_task() {
    let mut grid = Harness::with_workers(2);
    let task_estimate = Some(Duration::from_micros(125));
    grid.submit_spec(1, JobSpec { task_estimate, ..stripes(400) });
    assert_eq!(grid.claim_tasks(1), Some((job(1), 0..100)));
    grid.submit_spec(2, JobSpec { task_estimate, ..stripes(400_000) });
    assert_eq!(
        grid.claim_tasks(2).map(|(_, tasks)| tasks.end - tasks.start),
        Some(100),
        "as long as the lease of the other slot"
    );
    assert_eq!(grid.claim_tasks(1), Some((job(2), 0..200)), "a quarter of the target by the estimate");
}

#[test]
fn a_short_job_is_divided_into_one_even_lease_for_each_slot() {
    let mut grid = Harness::with_workers(2);
    // 3 ms in all, while nothing is known of the machine.
    grid.submit_spec(1, JobSpec { task_estimate: Some(Duration::from_nanos(46_875)), ..stripes(16) });
    assert_eq!(grid.claim_tasks(1), Some((job(1), 0..8)));
    assert_eq!(grid.claim_tasks(2), Some((job(1), 8..16)), "all that is left, not its far half");
}

#[test]
fn a_worker_that_fetches_keeps_nothing_from_others() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, JobSpec { setup: TASK_TIME * 100, ..stripes(20) });
    let fetched = grid.claim_for(lane(1), LeaseSize::AtMost(1)).expect("active").expect("task 0");
    grid.complete(&fetched).expect("leased");
    assert_eq!(grid.claim_tasks(2).map(|(_, tasks)| tasks.start), Some(1));
}

#[test]
fn the_rest_that_a_late_worker_walks_is_not_left_to_it() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, JobSpec { setup: TASK_TIME * 8, ..stripes(20) });
    let first = grid.claim(1).expect("the start");
    grid.complete_after(&first, TASK_TIME * 9).expect("leased");
    grid.claim(1).expect("goes on");
    assert_eq!(grid.claim(2), None, "not worth a set-up");
    grid.wait(Duration::from_secs(5));
    assert!(grid.claim(2).is_some(), "better late than never");
}

#[test]
fn a_slot_begins_where_whole_leases_lead_to_the_end() {
    let mut grid = Harness::with_workers(2);
    let task_estimate = Some(Duration::from_micros(50));
    grid.submit_spec(1, JobSpec { task_estimate, ..stripes(80) });
    let leases = [1, 2, 1, 2].map(|worker| grid.claim_tasks(worker));
    assert_eq!(leases, [0..20, 40..60, 20..40, 60..80].map(|tasks| Some((job(1), tasks))));
}
