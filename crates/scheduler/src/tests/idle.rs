//! Idle slots: which is offered next, and when one that found nothing is offered again.

use std::time::Duration;

use model::{AttemptId, JobKind, Priority, Requirements};
use uuid::Uuid;

use super::harness::{Harness, TASK_TIME, job, labels, lane, slots, spec, worker};
use crate::{JobSpec, Lane, Lease, LeaseSize, Order, WorkerSpec};

/// Offers idle slots until there is none, claims for each, and returns those that found nothing as well.
fn settle(grid: &mut Harness) -> (Vec<Lease>, Vec<Lane>) {
    let (mut leases, mut misses) = (Vec::new(), Vec::new());
    for _ in 0..1_000 {
        let Some(idle) = grid.scheduler.next_idle(grid.now) else { return (leases, misses) };
        grid.scheduler.check();
        match grid.claim_for(idle, LeaseSize::Fitting).expect("only active workers are offered") {
            Some(lease) => leases.push(lease),
            None => {
                grid.scheduler.slot_idle(idle);
                misses.push(idle);
            }
        }
    }
    panic!("slots are offered without end: {misses:?}")
}

fn idle(grid: &mut Harness, numbers: impl IntoIterator<Item = u64>) {
    numbers.into_iter().for_each(|number| grid.scheduler.slot_idle(lane(number)));
}

fn with_labels(words: &[(&str, &str)]) -> WorkerSpec {
    WorkerSpec { labels: labels(words), ..slots(1) }
}

fn requiring(words: &[(&str, &str)], tasks: u64) -> JobSpec {
    JobSpec { requires: Requirements { labels: labels(words), ..Requirements::default() }, ..spec(tasks) }
}

#[test]
fn slots_are_offered_in_the_order_in_which_they_became_idle() {
    let mut grid = Harness::with_workers(4);
    idle(&mut grid, [3, 1, 4, 3]);
    assert_eq!(grid.scheduler.next_idle(grid.now), None, "nothing waits");
    grid.submit(1, 10);
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(3)));
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(1)));
    idle(&mut grid, [3]);
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(4)));
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(3)));
    assert_eq!(grid.scheduler.next_idle(grid.now), None, "worker 2 never said that it is idle");
}

#[test]
fn the_slots_of_one_worker_keep_their_own_turns() {
    let mut grid = Harness::new();
    grid.join(1, slots(2));
    grid.join(2, slots(1));
    grid.submit(1, 10);
    let second = Lane { slot: 1, ..lane(1) };
    grid.scheduler.slot_idle(second);
    grid.scheduler.slot_idle(lane(2));
    grid.scheduler.slot_idle(lane(1));
    let order: Vec<_> = (0..4).map_while(|_| grid.scheduler.next_idle(grid.now)).collect();
    assert_eq!(order, [second, lane(2), lane(1)]);
}

#[test]
fn the_class_with_the_best_waiting_work_comes_first() {
    let mut grid = Harness::new();
    grid.join(1, with_labels(&[("zone", "a")]));
    grid.join(2, with_labels(&[("zone", "b")]));
    grid.join(3, with_labels(&[("zone", "c")]));
    idle(&mut grid, [1, 2, 3]);
    grid.submit_spec(1, requiring(&[("zone", "a")], 1));
    grid.submit_spec(2, JobSpec { priority: Priority::HIGHEST, ..requiring(&[("zone", "b")], 1) });
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(2)));
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(1)));
    assert_eq!(grid.scheduler.next_idle(grid.now), None, "worker 3 can run neither");
    idle(&mut grid, [1, 2]);
    grid.wait(super::harness::POLICY.aging_interval * 5);
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(1)), "it has waited as high, and is older");
}

#[test]
fn a_slot_that_finds_nothing_is_offered_again_when_something_changes() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 1);
    let lease = grid.claim(1).expect("task 0");
    let busy = grid.scheduler.next_idle(grid.now);
    assert_eq!(busy, None);
    grid.scheduler.worker_suspended(worker(2), grid.now);
    grid.join(3, slots(1));
    grid.fail(&lease).expect("leased");
    idle(&mut grid, [1]);
    assert_eq!(settle(&mut grid), (vec![], vec![lane(1)]), "worker 3 could run it");
    assert_eq!(settle(&mut grid), (vec![], vec![]), "nothing has changed");
    grid.wait(Duration::from_millis(200));
    let (leases, misses) = settle(&mut grid);
    assert_eq!((leases.len(), misses), (1, vec![]), "it is held back no longer");
    grid.fail(&leases[0]).expect("leased");
    idle(&mut grid, [1]);
    assert_eq!(settle(&mut grid).1, [lane(1)]);
    grid.scheduler.worker_lost(worker(3), grid.now);
    assert_eq!(settle(&mut grid).0.len(), 1, "no other worker is left");
}

#[test]
fn new_work_is_offered_to_slots_that_found_nothing() {
    let mut grid = Harness::with_workers(3);
    grid.submit(1, 1);
    let lease = grid.claim(1).expect("task 0");
    grid.scheduler.release(lease.attempt, grid.now).expect("leased");
    idle(&mut grid, [1]);
    assert_eq!(settle(&mut grid).1, [lane(1)]);
    grid.submit(2, 1);
    let (leases, misses) = settle(&mut grid);
    assert_eq!((leases[0].job, misses), (job(2), vec![]));
}

#[test]
fn of_many_slots_that_must_leave_a_task_alone_few_are_offered() {
    let mut grid = Harness::new();
    grid.join(1, slots(64));
    grid.join(2, slots(1));
    grid.submit(1, 1);
    let lease = grid.claim(1).expect("task 0");
    grid.fail(&lease).expect("leased");
    for slot in 0..64 {
        grid.scheduler.slot_idle(Lane { slot, ..lane(1) });
    }
    assert_eq!(settle(&mut grid), (vec![], vec![lane(1)]), "its other slots would find nothing either");
    idle(&mut grid, [2]);
    let (leases, misses) = settle(&mut grid);
    assert_eq!((leases[0].tasks.clone(), misses), (0..1, vec![]));
}

#[test]
fn a_stripe_that_is_left_to_its_lane_is_offered_to_few() {
    let mut grid = Harness::with_workers(50);
    grid.submit_spec(1, JobSpec { order: Order::Stripes, setup: TASK_TIME * 8, ..spec(16) });
    let first = grid.claim(1).expect("the start");
    grid.complete_after(&first, TASK_TIME * 9).expect("leased");
    let walking = grid.claim(1).expect("goes on");
    idle(&mut grid, 2..=50);
    let (leases, misses) = settle(&mut grid);
    assert_eq!((leases, misses.len()), (vec![], 3), "three workers say it for all");
    assert_eq!(settle(&mut grid), (vec![], vec![]));
    grid.complete(&walking).expect("leased");
    grid.scheduler.worker_suspended(worker(1), grid.now);
    assert!(!settle(&mut grid).0.is_empty(), "nobody walks it now");
}

#[test]
fn a_slot_that_becomes_idle_leaves_its_stripe_to_others() {
    let mut grid = Harness::with_workers(2);
    grid.submit_spec(1, JobSpec { order: Order::Stripes, setup: TASK_TIME * 8, ..spec(16) });
    let first = grid.claim(1).expect("the start");
    grid.complete_after(&first, TASK_TIME * 9).expect("leased");
    idle(&mut grid, [2]);
    assert_eq!(settle(&mut grid).1, [lane(2)], "worker 1 walks it");
    idle(&mut grid, [1]);
    assert!(!settle(&mut grid).0.is_empty());
}

#[test]
fn a_late_lease_is_offered_to_an_idle_slot() {
    let mut grid = Harness::with_workers(3);
    grid.submit(1, 2);
    let (failing, other) = (grid.claim(1).expect("task 0"), grid.claim(2).expect("task 1"));
    grid.complete(&other).expect("leased");
    grid.fail(&failing).expect("leased");
    let late = grid.claim(2).expect("task 0 again");
    idle(&mut grid, [1, 2, 3]);
    assert_eq!(settle(&mut grid), (vec![], vec![]), "nothing is late");
    assert!(!grid.scheduler.has_work());
    grid.wait(Duration::from_secs(1));
    assert!(grid.scheduler.has_work());
    let (leases, misses) = settle(&mut grid);
    assert_eq!(leases[0].tasks, late.tasks);
    assert_eq!(misses, [lane(1), lane(2)], "the first has failed at it, the second holds it");
}

#[test]
fn slots_of_suspended_workers_come_back_and_those_of_gone_ones_do_not() {
    let mut grid = Harness::with_workers(4);
    idle(&mut grid, [1, 2, 3, 4]);
    grid.scheduler.worker_suspended(worker(1), grid.now);
    grid.scheduler.worker_retired(worker(2), grid.now);
    grid.scheduler.worker_lost(worker(3), grid.now);
    grid.scheduler.slot_gone(lane(4));
    idle(&mut grid, [2, 3, 9]);
    grid.submit(1, 10);
    grid.scheduler.check();
    assert_eq!(grid.scheduler.next_idle(grid.now), None);
    grid.scheduler.worker_suspended(worker(4), grid.now);
    idle(&mut grid, [4]);
    assert_eq!(grid.scheduler.next_idle(grid.now), None);
    grid.scheduler.worker_resumed(worker(4));
    grid.scheduler.worker_resumed(worker(1));
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(1)));
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(4)));
    assert_eq!(grid.scheduler.next_idle(grid.now), None);
}

#[test]
fn a_claim_takes_its_slot_from_the_idle_ones() {
    let mut grid = Harness::with_workers(1);
    grid.submit(1, 10);
    idle(&mut grid, [1]);
    grid.claim(1).expect("task 0");
    assert_eq!(grid.scheduler.next_idle(grid.now), None);
}

#[test]
fn a_busy_slot_that_gets_nothing_ahead_keeps_no_idle_one_from_its_work() {
    let mut grid = Harness::new();
    grid.join(1, slots(2));
    grid.submit(1, 2);
    grid.scheduler.slot_idle(Lane { slot: 1, ..lane(1) });
    grid.claim(1).expect("task 0");
    assert_eq!(grid.claim(1), None, "slot 1 idles");
    assert_eq!(settle(&mut grid).0.len(), 1);
}

#[test]
fn a_paused_or_unservable_job_is_offered_to_nobody() {
    let mut grid = Harness::with_workers(1);
    idle(&mut grid, [1]);
    grid.submit(1, 10);
    grid.scheduler.pause(job(1)).expect("it waits");
    grid.submit_spec(2, requiring(&[("gpu", "yes")], 1));
    assert_eq!(grid.scheduler.next_idle(grid.now), None);
    grid.scheduler.resume(job(1), grid.now).expect("it is paused");
    assert_eq!(grid.scheduler.next_idle(grid.now), Some(lane(1)));
}

#[test]
fn workers_with_the_same_abilities_are_one_to_a_new_class() {
    let mut grid = Harness::new();
    for number in 1..=100 {
        grid.join(number, with_labels(&[("zone", if number % 2 == 0 { "a" } else { "b" })]));
    }
    grid.join(101, WorkerSpec { kinds: vec![JobKind::TASKS], ..slots(1) });
    assert_eq!(grid.scheduler.workers().active_abilities().count(), 3);
    for number in 1..=101 {
        grid.scheduler.worker_lost(worker(number), grid.now);
    }
    assert_eq!(grid.scheduler.workers().active_abilities().count(), 0);
    grid.scheduler.check();
}

#[test]
fn a_worker_that_joins_is_a_change_to_all_of_its_ability() {
    let mut grid = Harness::with_workers(4);
    grid.submit_spec(1, JobSpec { order: Order::Stripes, setup: TASK_TIME * 8, ..spec(16) });
    let first = grid.claim(1).expect("the start");
    grid.complete_after(&first, TASK_TIME * 9).expect("leased");
    grid.claim(1).expect("goes on");
    idle(&mut grid, [2, 3, 4]);
    assert_eq!(settle(&mut grid).1.len(), 3);
    grid.join(5, slots(1));
    idle(&mut grid, [5]);
    assert_eq!(settle(&mut grid).1.len(), 3, "three workers say it for all");
}

#[test]
fn an_adopted_lease_behind_which_nothing_fits_ends_the_offers() {
    let mut grid = Harness::with_workers(2);
    grid.submit(1, 2);
    let attempt = AttemptId(Uuid::from_u128(77));
    grid.scheduler.adopt(lane(1), attempt, job(1), 0..1, Some(grid.now), grid.now).expect("open tasks");
    // The caller does not know yet that the slot is busy.
    idle(&mut grid, [1]);
    assert_eq!(settle(&mut grid), (vec![], vec![lane(1)]), "nothing ahead while worker 2 could run it");
    idle(&mut grid, [2]);
    assert_eq!(settle(&mut grid).0.len(), 1);
}

#[test]
fn classes_without_a_worker_are_not_looked_at_for_an_idle_slot() {
    let mut grid = Harness::new();
    grid.join(1, with_labels(&[("zone", "a")]));
    idle(&mut grid, [1]);
    for number in 1..=3 {
        grid.submit_spec(number, requiring(&[("zone", number.to_string().as_str())], 1));
    }
    let runnable = |grid: &Harness| grid.scheduler.queue().runnable_classes().len();
    assert_eq!((runnable(&grid), grid.scheduler.has_work()), (0, false));
    grid.join(2, with_labels(&[("zone", "2")]));
    grid.scheduler.check();
    assert_eq!((runnable(&grid), grid.scheduler.has_work()), (1, true));
    grid.scheduler.worker_suspended(worker(2), grid.now);
    grid.scheduler.check();
    assert_eq!((runnable(&grid), grid.scheduler.has_work()), (0, false));
    grid.scheduler.worker_resumed(worker(2));
    grid.scheduler.check();
    assert_eq!(grid.claim(2).expect("its class is served").job, job(2));
    assert_eq!((runnable(&grid), grid.scheduler.has_work()), (0, false));
}

#[test]
fn work_for_other_labels_wakes_no_slot() {
    let mut grid = Harness::new();
    grid.join(1, with_labels(&[("zone", "a")]));
    grid.submit_spec(1, requiring(&[("zone", "a")], 1));
    let lease = grid.claim(1).expect("task 0");
    grid.scheduler.release(lease.attempt, grid.now).expect("leased");
    idle(&mut grid, [1]);
    assert_eq!(settle(&mut grid).1, [lane(1)]);
    grid.submit_spec(2, JobSpec { requires: Requirements { cpus: Some(9), ..Requirements::default() }, ..spec(1) });
    assert_eq!(settle(&mut grid), (vec![], vec![]));
}
